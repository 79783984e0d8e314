//! A doubly linked list of small numbers, each in it at most once, with removal from the middle in constant time.
//!
//! Connections wait in lists (for a turn, for a reply, for a deadline) and may end while they wait. A plain queue would
//! keep the entries of ended connections, and a guest that opens and closes all day would make it grow.

/// A list of slot numbers. Its memory is proportional to the largest number that was ever in it.
#[derive(Debug, Default)]
pub(crate) struct SlotList {
    first: Option<u32>,
    last: Option<u32>,
    links: Vec<Link>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    linked: bool,
    previous: Option<u32>,
    next: Option<u32>,
}

impl SlotList {
    pub(crate) fn front(&self) -> Option<u32> {
        self.first
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Adds `slot` at the end, unless it is in the list.
    pub(crate) fn push_back(&mut self, slot: u32) {
        let index = slot as usize;
        if self.links.len() <= index {
            self.links.resize(index + 1, Link::default());
        }
        if self.links[index].linked {
            return;
        }
        let previous = self.last.replace(slot);
        self.links[index] = Link {
            linked: true,
            previous,
            next: None,
        };
        match previous {
            Some(previous) => self.links[previous as usize].next = Some(slot),
            None => self.first = Some(slot),
        }
    }

    /// Takes `slot` out, wherever it is, if it is in the list.
    pub(crate) fn remove(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize) else {
            return;
        };
        let Link {
            linked: true,
            previous,
            next,
        } = std::mem::take(link)
        else {
            return;
        };
        match previous {
            Some(previous) => self.links[previous as usize].next = next,
            None => self.first = next,
        }
        match next {
            Some(next) => self.links[next as usize].previous = previous,
            None => self.last = previous,
        }
    }

    /// Moves the first to the end: the next one's turn.
    pub(crate) fn rotate(&mut self) {
        if let Some(first) = self.first {
            self.remove(first);
            self.push_back(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Clone, Debug)]
    enum Step {
        Push(u32),
        Remove(u32),
        Rotate,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u32..8).prop_map(Step::Push),
            (0_u32..8).prop_map(Step::Remove),
            Just(Step::Rotate)
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_queue_without_duplicates(steps in prop::collection::vec(any_step(), 0..100)) {
            let mut list = SlotList::default();
            let mut model = VecDeque::new();
            for step in steps {
                match step {
                    Step::Push(slot) => {
                        list.push_back(slot);
                        if !model.contains(&slot) {
                            model.push_back(slot);
                        }
                    }
                    Step::Remove(slot) => {
                        list.remove(slot);
                        model.retain(|&other| other != slot);
                    }
                    Step::Rotate => {
                        list.rotate();
                        if let Some(first) = model.pop_front() {
                            model.push_back(first);
                        }
                    }
                }
                prop_assert_eq!(list.front(), model.front().copied());
                prop_assert_eq!(list.is_empty(), model.is_empty());
            }
            for expected in model {
                prop_assert_eq!(list.front(), Some(expected));
                list.remove(expected);
            }
            prop_assert!(list.is_empty());
        }
    }
}
