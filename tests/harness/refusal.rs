//! System calls of the programs under test that the kernel refuses.

use rustix::io::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// A system call, told from others by one argument (its number and value).
pub(crate) type Marked = (i64, Option<(u8, u64)>);

/// Runs `act` in a thread of its own, where these calls fail: in what it starts as well, for ever.
pub(crate) fn refusing<T: Send>(
    calls: impl Iterator<Item = Marked> + Send,
    error: Errno,
    act: impl FnOnce() -> T + Send,
) -> T {
    let refused = || {
        refuse(calls, error);
        act()
    };
    std::thread::scope(|scope| scope.spawn(refused).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn refuse(calls: impl Iterator<Item = Marked>, error: Errno) {
    let rule = |(call, mark): Marked| {
        let condition = mark.map(|(argument, value)| {
            SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)
        });
        let rules =
            condition.map(|condition| SeccompRule::new(vec![condition.expect("condition")]));
        (
            call,
            rules.map(|rule| rule.expect("rule")).into_iter().collect(),
        )
    };
    let filter = SeccompFilter::new(
        calls.map(rule).collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(error.raw_os_error().unsigned_abs()),
        std::env::consts::ARCH.try_into().expect("architecture"),
    );
    let program: BpfProgram = filter.expect("filter").try_into().expect("program");
    seccompiler::apply_filter(&program).expect("seccomp");
}
