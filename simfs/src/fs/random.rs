//! Random requests with deaths in between, against a model of what a guest and the kernel in front of it see. For tests only.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::testbed::{Bed, ROOT, at, no_backing, write_at};
use crate::handle::HandleId;
use crate::node::NodeId;
use crate::sys::file::RenameFlags;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A request; numbers are indices modulo what there is.
#[derive(Clone, Debug)]
enum Op {
    Create(usize),
    Mkdir(usize),
    Lookup(usize),
    Unlink(usize),
    Rename(usize, usize),
    Exchange(usize, usize),
    Link(usize, usize),
    Open(usize, bool),
    Write(usize, u8),
    Read(usize),
    Release(usize),
    /// The kernel forgets some nodes from this one on, in one order.
    Forget(usize, usize),
    /// A listing with attributes.
    List,
    /// Nodes that were not asked for since the last time are put to rest.
    Rest,
}

/// How the request meets the daemon's end.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It does not.
    None,
    /// The daemon dies when it is answered.
    After,
    /// The daemon dies before the answer is sent.
    Unanswered,
    /// The daemon dies at this fault point, if the request comes by there.
    Within(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let name = || 0..NAMES.len();
    let index = || 0..64_usize;
    prop_oneof![
        3 => name().prop_map(Op::Create),
        1 => name().prop_map(Op::Mkdir),
        3 => name().prop_map(Op::Lookup),
        3 => name().prop_map(Op::Unlink),
        2 => (name(), name()).prop_map(|(from, to)| Op::Rename(from, to)),
        1 => (name(), name()).prop_map(|(from, to)| Op::Exchange(from, to)),
        1 => (name(), name()).prop_map(|(from, to)| Op::Link(from, to)),
        2 => (index(), any::<bool>()).prop_map(|(node, write)| Op::Open(node, write)),
        3 => (index(), any::<u8>()).prop_map(|(handle, byte)| Op::Write(handle, byte)),
        2 => index().prop_map(Op::Read),
        2 => index().prop_map(Op::Release),
        2 => (index(), 1..4_usize).prop_map(|(node, count)| Op::Forget(node, count)),
        1 => Just(Op::List),
        3 => Just(Op::Rest),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        6 => Just(End::None),
        1 => Just(End::After),
        2 => Just(End::Unanswered),
        3 => (0..crate::fault::POINTS.len()).prop_map(End::Within),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct File(usize);

/// What the guest and the kernel know.
#[derive(Debug, Default)]
struct Model {
    names: BTreeMap<&'static str, File>,
    /// Content; `None` for a directory.
    files: Vec<Option<Vec<u8>>>,
    nodes: BTreeMap<NodeId, (File, u64)>,
    handles: BTreeMap<HandleId, (File, NodeId, bool)>,
}

impl Model {
    fn looked_up(&mut self, id: NodeId, file: File) {
        let node = self.nodes.entry(id).or_insert((file, 0));
        node.0 = file;
        node.1 += 1;
    }

    fn is_dir(&self, name: &str) -> Option<bool> {
        let File(file) = self.names.get(name)?;
        Some(self.files[*file].is_none())
    }

    fn node(&self, index: usize) -> Option<(NodeId, File)> {
        let all: Vec<_> = self.nodes.iter().collect();
        let (id, (file, _)) = all.get(index % all.len().max(1))?;
        Some((**id, *file))
    }

    fn handle(&self, index: usize) -> Option<(HandleId, File, bool)> {
        let all: Vec<_> = self.handles.iter().collect();
        let (id, (file, _, write)) = all.get(index % all.len().max(1))?;
        Some((**id, *file, *write))
    }

    fn is_open(&self, id: NodeId) -> bool {
        self.handles.values().any(|(_, node, _)| *node == id)
    }
}

impl End {
    /// The fault point, if it is one.
    fn point(self) -> Option<&'static str> {
        let points = crate::fault::POINTS;
        match self {
            Self::Within(point) => Some(points[point % points.len()]),
            _ => None,
        }
    }
}

/// One answer: a node, a handle, bytes, names with their nodes.
#[derive(Debug, Default)]
struct Answer {
    listed: Vec<(String, NodeId)>,
    node: Option<NodeId>,
    handle: Option<HandleId>,
    data: Option<Vec<u8>>,
}

fn request(
    bed: &mut Bed,
    end: End,
    act: impl Fn(&super::Fs, super::Call<'_>) -> crate::error::FsResult<Answer>,
) -> Option<Answer> {
    let answer = match end {
        End::None => bed.ask(&act),
        End::After => {
            let answer = bed.ask(&act);
            bed.die();
            answer
        }
        End::Unanswered => {
            let (first, second) = bed.ask_twice(&act);
            assert_eq!(first.is_ok(), second.is_ok(), "{first:?} then {second:?}");
            second
        }
        End::Within(_) => {
            bed.cut_off(end.point().unwrap(), &act);
            bed.again(&act)
        }
    };
    answer.ok()
}

fn step(bed: &mut Bed, model: &mut Model, op: &Op, end: End) {
    match *op {
        Op::Create(name) => create(bed, model, NAMES[name], end),
        Op::Mkdir(name) => mkdir(bed, model, NAMES[name], end),
        Op::Lookup(name) => {
            let name = NAMES[name];
            let answer = request(bed, end, |fs, call| {
                let entry = fs.lookup(call, at(name))?;
                Ok(Answer {
                    node: Some(entry.node.id()),
                    ..Answer::default()
                })
            });
            let file = model.names.get(name).copied();
            assert_eq!(answer.is_some(), file.is_some(), "{name}");
            if let (Some(answer), Some(file)) = (answer, file) {
                model.looked_up(answer.node.unwrap(), file);
            }
        }
        Op::Unlink(name) => {
            let name = NAMES[name];
            let is_dir = model.is_dir(name);
            let answer = request(bed, end, |fs, call| {
                if is_dir == Some(true) {
                    fs.rmdir(call, at(name))?;
                } else {
                    fs.unlink(call, at(name))?;
                }
                Ok(Answer::default())
            });
            assert_eq!(answer.is_some(), model.names.remove(name).is_some());
        }
        Op::Rename(from, to) => rename(bed, model, NAMES[from], NAMES[to], end),
        Op::Exchange(from, to) => {
            let (from, to) = (NAMES[from], NAMES[to]);
            let both = model
                .names
                .get(from)
                .copied()
                .zip(model.names.get(to).copied());
            let answer = request(bed, end, |fs, call| {
                fs.rename(call, at(from), at(to), RenameFlags::EXCHANGE)?;
                Ok(Answer::default())
            });
            assert_eq!(answer.is_some(), both.is_some());
            if let Some((one, two)) = both {
                model.names.insert(from, two);
                model.names.insert(to, one);
            }
        }
        Op::Link(from, to) => link(bed, model, NAMES[from], NAMES[to], end),
        Op::Open(index, write) => open(bed, model, index, write, end),
        Op::Write(index, byte) => write(bed, model, index, byte),
        Op::Read(index) => {
            let Some((handle, File(file), _)) = model.handle(index) else {
                return;
            };
            let answer = request(bed, end, |fs, _| {
                let mut buffer = vec![0; 4096];
                let length = fs.read(handle, 0, &mut buffer)?;
                buffer.truncate(length);
                Ok(Answer {
                    data: Some(buffer),
                    ..Answer::default()
                })
            });
            assert_eq!(answer.unwrap().data, model.files[file]);
        }
        Op::Release(index) => {
            if let Some((handle, _, _)) = model.handle(index) {
                bed.fs.release(handle).unwrap();
                model.handles.remove(&handle);
            }
        }
        Op::Forget(index, count) => {
            let nodes: Vec<_> = (index..index + count)
                .filter_map(|index| model.node(index))
                .map(|(id, _)| id)
                .filter(|id| !model.is_open(*id))
                .collect();
            let entries = nodes
                .into_iter()
                .filter_map(|id| Some((id, model.nodes.remove(&id)?.1)))
                .collect();
            bed.forget(entries, end.point());
        }
        Op::Rest => bed.fs.nodes().put_to_rest(),
        Op::List => list(bed, model, end),
    }
}

fn list(bed: &mut Bed, model: &mut Model, end: End) {
    let answer = request(bed, end, |fs, call| {
        let mut listed = Vec::new();
        fs.readdirplus(call, NodeId::ROOT, 0, &mut |entry, found| {
            if let Some(found) = found {
                let name = entry.name.to_str().unwrap().to_owned();
                listed.push((name, found.node.id()));
            }
            false
        })?;
        Ok(Answer {
            listed,
            ..Answer::default()
        })
    });
    let listed = answer.unwrap().listed;
    assert_eq!(listed.len(), model.names.len(), "{listed:?}");
    for (name, id) in listed {
        let file = model.names[name.as_str()];
        model.looked_up(id, file);
    }
}

fn create(bed: &mut Bed, model: &mut Model, name: &'static str, end: End) {
    if model.names.contains_key(name) {
        // The kernel knows the name and sends no such request.
        return;
    }
    let answer = request(bed, end, |fs, call| {
        let (entry, handle, _) = fs.create(
            call,
            at(name),
            0o100_644,
            0o022,
            libc::O_RDWR,
            &mut no_backing,
        )?;
        Ok(Answer {
            node: Some(entry.node.id()),
            handle: Some(handle),
            ..Answer::default()
        })
    });
    let answer = answer.unwrap();
    let file = File(model.files.len());
    model.files.push(Some(Vec::new()));
    model.names.insert(name, file);
    let id = answer.node.unwrap();
    model.looked_up(id, file);
    model
        .handles
        .insert(answer.handle.unwrap(), (file, id, true));
}

fn mkdir(bed: &mut Bed, model: &mut Model, name: &'static str, end: End) {
    let answer = request(bed, end, |fs, call| {
        let entry = fs.mkdir(call, at(name), 0o755, 0)?;
        Ok(Answer {
            node: Some(entry.node.id()),
            ..Answer::default()
        })
    });
    assert_eq!(answer.is_some(), !model.names.contains_key(name), "{name}");
    if let Some(answer) = answer {
        let file = File(model.files.len());
        model.files.push(None);
        model.names.insert(name, file);
        model.looked_up(answer.node.unwrap(), file);
    }
}

fn rename(bed: &mut Bed, model: &mut Model, from: &'static str, to: &'static str, end: End) {
    let answer = request(bed, end, |fs, call| {
        fs.rename(call, at(from), at(to), RenameFlags::empty())?;
        Ok(Answer::default())
    });
    let kinds = (model.is_dir(from), model.is_dir(to));
    let possible = matches!(kinds, (Some(_), None)) || kinds.0.is_some() && kinds.0 == kinds.1;
    assert_eq!(answer.is_some(), possible, "{from} to {to}: {kinds:?}");
    if possible && model.names.get(from) != model.names.get(to) {
        let file = model.names.remove(from).unwrap();
        model.names.insert(to, file);
    }
}

fn link(bed: &mut Bed, model: &mut Model, from: &'static str, to: &'static str, end: End) {
    let Some(file) = model.names.get(from).copied() else {
        return;
    };
    let known = model.nodes.iter().find(|(_, (other, _))| *other == file);
    let Some(id) = known.map(|(id, _)| *id) else {
        return;
    };
    let answer = request(bed, end, |fs, call| {
        let entry = fs.link(call, id, at(to))?;
        Ok(Answer {
            node: Some(entry.node.id()),
            ..Answer::default()
        })
    });
    let possible = model.is_dir(from) == Some(false) && !model.names.contains_key(to);
    assert_eq!(answer.is_some(), possible, "{from} to {to}");
    if let Some(answer) = answer {
        assert_eq!(answer.node, Some(id));
        model.names.insert(to, file);
        model.looked_up(id, file);
    }
}

fn open(bed: &mut Bed, model: &mut Model, index: usize, write: bool, end: End) {
    let Some((id, file)) = model.node(index) else {
        return;
    };
    let has_name = model.names.values().any(|other| *other == file);
    if model.files[file.0].is_none() || !has_name && !model.is_open(id) {
        return;
    }
    let flags = if write { libc::O_RDWR } else { libc::O_RDONLY };
    let token = bed.register();
    let answer = request(bed, end, |fs, call| {
        let (handle, _) = fs.open(call, id, flags, &mut |_| Ok(token.clone()))?;
        Ok(Answer {
            handle: Some(handle),
            ..Answer::default()
        })
    });
    model
        .handles
        .insert(answer.unwrap().handle.unwrap(), (file, id, write));
}

fn write(bed: &mut Bed, model: &mut Model, index: usize, byte: u8) {
    let Some((handle, File(file), is_writer)) = model.handle(index) else {
        return;
    };
    let data = [byte; 7];
    let request = write_at(u64::from(byte) % 50, &data);
    let written = bed.fs.write(ROOT, handle, request);
    assert_eq!(written.is_ok(), is_writer, "{written:?}");
    if is_writer {
        let content = model.files[file].as_mut().unwrap();
        let start = usize::from(byte) % 50;
        if content.len() < start + 7 {
            content.resize(start + 7, 0);
        }
        content[start..start + 7].copy_from_slice(&data);
    }
}

fn compare(bed: &Bed, model: &Model) {
    assert_eq!(bed.fs.open_count(), model.handles.len());
    for (id, (_, count)) in &model.nodes {
        assert_eq!(bed.lookups(*id), *count, "lookups of {id}");
    }
    let names: std::collections::BTreeSet<_> = std::fs::read_dir(bed.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        names,
        model.names.keys().map(|name| (*name).to_owned()).collect()
    );
}

fn finish(bed: &mut Bed, model: &Model) {
    for handle in model.handles.keys() {
        bed.fs.release(*handle).unwrap();
    }
    for (id, (_, count)) in &model.nodes {
        bed.fs.forget(*id, *count);
    }
    bed.assert_empty();
    let engine = bed.fs.accounting().engine();
    assert!(engine.reserved().is_zero(), "{:?}", engine.reserved());
    assert_eq!(engine.invariant_violations(), 0);
    bed.die();
    assert_eq!(
        (bed.adopted.files, bed.adopted.lost, bed.adopted.damaged),
        (0, 0, 0)
    );
    bed.assert_empty();
}

/// Everything may fail, but nothing may be wrong.
fn use_damaged(bed: &mut Bed, model: &Model) {
    for (handle, (File(file), id, _)) in &model.handles {
        let mut buffer = vec![0; 4096];
        if let Ok(length) = bed.fs.read(*handle, 0, &mut buffer) {
            buffer.truncate(length);
            assert_eq!(Some(buffer), model.files[*file], "{handle} of {id}");
        }
    }
    // The number of an inode that is gone may be another's by now: the kernel tells them apart by generation.
    let named = |file: &File| model.names.values().any(|other| other == file);
    for (id, (file, _)) in model.nodes.iter().filter(|(_, (file, _))| named(file)) {
        if let Ok(stat) = bed.fs.getattr(*id) {
            assert_eq!(stat.is_dir(), model.files[file.0].is_none(), "{id}");
        }
    }
    for (name, File(file)) in &model.names {
        let found = bed.ask(|fs, call| fs.lookup(call, at(name))).unwrap();
        assert_eq!(found.stat.is_dir(), model.files[*file].is_none(), "{name}");
    }
    let made = bed.ask(|fs, call| fs.mkdir(call, at("one more"), 0o755, 0).map(drop));
    assert!(made.is_ok(), "{made:?}");
    bed.ask(|fs, call| fs.rmdir(call, at("one more"))).unwrap();
    bed.fs.end_forgets(&bed.orders);
    bed.fs.forget_left(&bed.orders);
    bed.fs.nodes().index_rest(&mut || true);
}

fn cases() -> u32 {
    let asked = std::env::var("SIMFS_RANDOM_CASES").ok();
    asked.and_then(|cases| cases.parse().ok()).unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a guest does and whenever the daemon dies: the guest sees one daemon that never dies, and nothing leaks.
    #[test]
    fn deaths_are_not_seen(history in prop::collection::vec((op(), end()), 1..60)) {
        let mut bed = Bed::new();
        let mut model = Model::default();
        for (op, end) in &history {
            step(&mut bed, &mut model, op, *end);
            compare(&bed, &model);
        }
        finish(&mut bed, &model);
    }

    /// S39: any damage to the saved state is refused, or loses what it hit; no other file is served in its place.
    #[test]
    fn damage_is_refused_or_harmless(
        history in prop::collection::vec((op(), end()), 1..40),
        flips in prop::collection::vec((any::<usize>(), 0..64_u32), 1..4),
    ) {
        let mut bed = Bed::new();
        let mut model = Model::default();
        for (op, end) in &history {
            step(&mut bed, &mut model, op, *end);
        }
        for (word, bit) in flips {
            bed.fs.shared().damage(word, bit);
        }
        if bed.try_die().is_ok() {
            use_damaged(&mut bed, &model);
            if bed.try_die().is_ok() {
                use_damaged(&mut bed, &model);
            }
        }
    }
}
