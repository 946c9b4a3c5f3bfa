//! One ordered row of identifiers out of several.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::store::Order;

type Source<'a> = Box<dyn Iterator<Item = &'a Arc<str>> + 'a>;

/// Merges sources that are each in the same order and have no identifier in common.
pub(super) struct Merge<'a> {
    heads: BinaryHeap<Head<'a>>,
}

impl<'a> Merge<'a> {
    pub(super) fn new(sources: Vec<Source<'a>>, order: Order) -> Self {
        let head = |mut rest: Source<'a>| Some(Head { id: rest.next()?, rest, order });
        Self { heads: sources.into_iter().filter_map(head).collect() }
    }
}

impl<'a> Iterator for Merge<'a> {
    type Item = &'a Arc<str>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut top = self.heads.peek_mut()?;
        let id = top.id;
        match top.rest.next() {
            Some(next) => top.id = next,
            None => {
                std::collections::binary_heap::PeekMut::pop(top);
            }
        }
        Some(id)
    }
}

struct Head<'a> {
    id: &'a Arc<str>,
    rest: Source<'a>,
    order: Order,
}

/// The greatest head is the one that comes first.
impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match self.order {
            Order::NewestFirst => self.id.cmp(other.id),
            Order::OldestFirst => other.id.cmp(self.id),
        }
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head<'_> {}
