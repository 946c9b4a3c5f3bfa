//! The records of engines: a seat and a lease for each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use orchestrator_protocol::Error;
use orchestrator_storage::{Expect, Fields, Filter, Key, Operation, Record, Store, Table};
use serde::{Deserialize, Serialize};

use super::observer::Beat;
use super::{About, Member};
use crate::records;

/// A lease, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeaseRecord {
    /// Which life of the engine it is.
    pub(super) life: String,
    /// How often it was renewed.
    pub(super) counter: u64,
    pub(super) about: About,
}

/// A seat, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SeatRecord {
    /// Grows whenever the engine is removed from its seat.
    pub(super) epoch: u64,
    /// The life of the engine that holds it; `None` when the engine was removed or has left.
    #[serde(default)]
    pub(super) life: Option<String>,
    /// Whether it has left in peace.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) has_left: bool,
}

/// The key of a member's seat.
pub fn seat_key(member: &str) -> Key {
    Key::new(Table::Engine, format!("{member}/seat"))
}

pub(super) fn lease_key(member: &str) -> Key {
    Key::new(Table::Engine, format!("{member}/lease"))
}

pub(super) fn expect(record: Option<&Record>) -> Expect {
    record.map_or(Expect::Absent, |record| Expect::Revision(record.revision))
}

/// The operation that removes a member from the seat of a record; `None` when nobody has it.
pub(super) fn free(record: &Record, has_left: bool) -> Result<Option<Operation>, Error> {
    let seat: SeatRecord = records::read(record)?;
    if seat.life.is_none() {
        return Ok(None);
    }
    let freed = SeatRecord { epoch: seat.epoch + 1, life: None, has_left };
    records::put(record.key.clone(), Fields::default(), &freed, Expect::Revision(record.revision)).map(Some)
}

/// All records of engines, by member.
#[derive(Default)]
pub(super) struct Seats {
    pub(super) taken: BTreeMap<String, Record>,
    pub(super) free: BTreeMap<String, Record>,
    left: BTreeSet<String>,
    pub(super) leases: BTreeMap<String, Record>,
    about: BTreeMap<String, (Beat, About)>,
}

impl Seats {
    pub(super) async fn read(store: &dyn Store) -> Result<Self, Error> {
        let mut seats = Self::default();
        records::each(store, Table::Engine, Filter::default(), |record| seats.add(record)).await?;
        Ok(seats)
    }

    fn add(&mut self, record: Record) -> Result<(), Error> {
        let id = Arc::clone(&record.key.id);
        match id.rsplit_once('/') {
            Some((member, "seat")) => {
                let seat: SeatRecord = records::read(&record)?;
                if seat.has_left {
                    self.left.insert(member.to_owned());
                }
                let place = if seat.life.is_some() { &mut self.taken } else { &mut self.free };
                place.insert(member.to_owned(), record);
            }
            Some((member, "lease")) => {
                let LeaseRecord { life, counter, about } = records::read(&record)?;
                self.about.insert(member.to_owned(), (Beat { life, counter }, about));
                self.leases.insert(member.to_owned(), record);
            }
            // A record of a newer release.
            _ => {}
        }
        Ok(())
    }

    pub(super) fn beats(&self) -> Result<BTreeMap<String, Beat>, Error> {
        Ok(self.about.iter().map(|(member, (beat, _))| (member.clone(), beat.clone())).collect())
    }

    pub(super) fn members(self) -> Vec<Member> {
        let ids: BTreeSet<&String> = self.taken.keys().chain(self.free.keys()).collect();
        ids.into_iter()
            .map(|id| Member {
                id: id.clone(),
                is_seated: self.taken.contains_key(id),
                has_left: self.left.contains(id),
                about: self.about.get(id).map(|(_, about)| about.clone()).unwrap_or_default(),
            })
            .collect()
    }
}
