//! The kernel's orders to forget nodes: each entry is carried out once, whoever dies meanwhile.
//!
//! What an order of a dead daemon still has to say is carried out while the successor serves: numbers of lookups are sums,
//! in which it does not matter what comes first. Only the entry that was under way is done before the first request.

use super::Fs;
use crate::fault;
use crate::node::NodeId;
use crate::shared::{ForgetMark, LeftForgets};

impl Fs {
    /// The kernel drops so many lookups of a node.
    pub fn forget(&self, node: NodeId, count: u64) {
        self.nodes.forget(node, count);
    }

    /// The same for an entry of an order that outlives this process: its mark tells a successor what is done.
    pub fn forget_entry(&self, mark: &ForgetMark<'_>, entry: usize, node: NodeId, count: u64) {
        let is_known = self.nodes.change_lookups(node, &mut |before| {
            let after = before.saturating_sub(count);
            mark.begin(entry, after);
            fault::point("forgetting");
            after
        });
        if is_known {
            fault::point("forgotten");
        }
        mark.end(entry);
    }

    /// Ends the entries that a predecessor was at. To be called before the first request.
    pub fn end_forgets(&self, left: &[LeftForgets]) {
        for order in left {
            let mark = self.shared.forgets().mark(order.place, order.unique);
            let (entry, begun) = mark.progress();
            if let Some((lookups, (node, _))) = begun.zip(order.entries.get(entry).copied()) {
                self.nodes.change_lookups(node, &mut |_| lookups);
                mark.end(entry);
            }
        }
    }

    /// Keeps orders of a predecessor for [`Self::forget_the_rest`].
    pub fn forget_later(&self, left: Vec<LeftForgets>) {
        self.forgets.lock().extend(left);
    }

    /// Carries out what predecessors left of their orders.
    pub fn forget_the_rest(&self) {
        let left = std::mem::take(&mut *self.forgets.lock());
        self.forget_left(&left);
    }

    /// The same for these.
    pub fn forget_left(&self, left: &[LeftForgets]) {
        for order in left {
            let mark = self.shared.forgets().mark(order.place, order.unique);
            let (done, _) = mark.progress();
            for (entry, (node, count)) in order.entries.iter().enumerate().skip(done) {
                self.forget_entry(&mark, entry, *node, *count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::{Bed, at};
    use super::*;

    const UNIQUE: u64 = 100;
    const PLACE: usize = 1;

    /// Five files; how often each was looked up, and how often it is to be forgotten.
    const LOOKUPS: [(u64, u64); 5] = [(1, 1), (3, 2), (2, 2), (1, 0), (4, 1)];

    fn bed() -> (Bed, Vec<(NodeId, u64)>) {
        let mut bed = Bed::new();
        let mut entries = Vec::new();
        for (number, (looked_up, forgotten)) in LOOKUPS.into_iter().enumerate() {
            let name = number.to_string();
            let made = bed.ask(|fs, call| fs.mkdir(call, at(&name), 0o755, 0));
            let id = made.unwrap().node.id();
            for _ in 1..looked_up {
                bed.ask(|fs, call| fs.lookup(call, at(&name))).unwrap();
            }
            entries.push((id, forgotten));
        }
        // One that nobody knows, and one that is named twice.
        entries.insert(2, (NodeId::new(1 << 60), 7));
        entries.push((entries[1].0, 1));
        (bed, entries)
    }

    fn left(fs: &Fs, entries: &[(NodeId, u64)]) -> Option<LeftForgets> {
        let order = LeftForgets {
            place: PLACE,
            unique: UNIQUE,
            entries: entries.to_vec(),
        };
        let (done, _) = fs.shared().forgets().mark(PLACE, UNIQUE).progress();
        (done < entries.len()).then_some(order)
    }

    /// Carries the order out with a death after so many passes of a point in each daemon; how many died.
    fn carry_out(bed: &mut Bed, entries: &[(NodeId, u64)], point: &'static str) -> usize {
        let mut deaths = 0;
        loop {
            let fs = bed.fs.clone();
            let Some(order) = left(&fs, entries) else {
                return deaths;
            };
            fs.end_forgets(std::slice::from_ref(&order));
            fs.forget_later(vec![order]);
            if fault::stop_at(point, || fs.forget_the_rest()).is_none() {
                deaths += 1;
                drop(fs);
                bed.die();
            }
        }
    }

    // S85: an order that is cut off anywhere is carried out once.
    #[test]
    fn every_entry_is_carried_out_once_whoever_dies() {
        for point in ["forgetting", "forgotten"] {
            let (mut bed, entries) = bed();
            assert_eq!(carry_out(&mut bed, &entries, point), 6, "{point}");
            let known: Vec<u64> = entries.iter().map(|(id, _)| bed.lookups(*id)).collect();
            assert_eq!(known, [0, 0, 0, 0, 1, 3, 0], "{point}");
            for (id, count) in [(entries[4].0, 1), (entries[5].0, 3)] {
                bed.fs.forget(id, count);
            }
            bed.assert_empty();
        }
    }

    /// Between the deaths others look the same nodes up: what was begun is ended before that, and only then.
    #[test]
    fn lookups_meanwhile_count() {
        let (mut bed, entries) = bed();
        let fs = bed.fs.clone();
        let mark = fs.shared().forgets().mark(PLACE, UNIQUE);
        let (node, count) = entries[0];
        let begin = || fs.forget_entry(&mark, 0, node, count);
        assert!(fault::stop_at("forgotten", begin).is_none());
        drop(fs);
        bed.die();
        let order = left(&bed.fs, &entries).unwrap();
        bed.fs.end_forgets(std::slice::from_ref(&order));
        bed.ask(|fs, call| fs.lookup(call, at("0"))).unwrap();
        bed.ask(|fs, call| fs.lookup(call, at("1"))).unwrap();
        bed.die();
        bed.fs.end_forgets(std::slice::from_ref(&order));
        bed.fs.forget_left(&[order]);
        let known: Vec<u64> = entries.iter().map(|(id, _)| bed.lookups(*id)).collect();
        assert_eq!(known, [1, 1, 0, 0, 1, 3, 1]);
    }
}
