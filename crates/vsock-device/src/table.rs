//! The table of connections: by slot, which is cheap, and by key, which is what packets carry.

use std::collections::HashMap;

use crate::connection::{Connection, Key};

/// Names a connection for as long as it lives. A later connection in the same slot has another id, so that an event that
/// comes too late meets nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    slot: u32,
    generation: u32,
}

impl ConnectionId {
    /// A small number, unique among living connections, below [`Limits::connections`](crate::Limits::connections).
    pub fn slot(self) -> u32 {
        self.slot
    }

    /// The id as one number, for example for an event loop.
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }
}

#[derive(Debug)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_key: HashMap<Key, u32>,
    capacity: u32,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

impl Table {
    pub(crate) fn new(capacity: u32) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            capacity,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.capacity as usize
    }

    /// Adds a connection, unless the table is full.
    pub(crate) fn insert(&mut self, connection: Connection) -> Option<ConnectionId> {
        if self.is_full() {
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| self.add_slot());
        self.by_key.insert(*connection.key(), slot);
        let entry = self.slots.get_mut(slot as usize)?;
        entry.connection = Some(connection);
        Some(ConnectionId {
            slot,
            generation: entry.generation,
        })
    }

    /// There are never more slots than the capacity, which is a u32.
    fn add_slot(&mut self) -> u32 {
        let slot = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Slot::default());
        slot
    }

    /// The connection that owns `key`.
    pub(crate) fn find(&self, key: &Key) -> Option<ConnectionId> {
        let slot = *self.by_key.get(key)?;
        self.id(slot)
    }

    /// The id of the connection in `slot`.
    pub(crate) fn id(&self, slot: u32) -> Option<ConnectionId> {
        let entry = self.slots.get(slot as usize)?;
        entry.connection.as_ref()?;
        Some(ConnectionId {
            slot,
            generation: entry.generation,
        })
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        let entry = self.slots.get(id.slot as usize)?;
        entry
            .connection
            .as_ref()
            .filter(|_| entry.generation == id.generation)
    }

    pub(crate) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let entry = self.slots.get_mut(id.slot as usize)?;
        let generation = entry.generation;
        entry.connection.as_mut().filter(|_| generation == id.generation)
    }

    /// Lets the key of connection `id` be used by another.
    pub(crate) fn release_key(&mut self, id: ConnectionId) {
        let Some(key) = self.get(id).map(|connection| *connection.key()) else {
            return;
        };
        if self.by_key.get(&key) == Some(&id.slot) {
            self.by_key.remove(&key);
        }
    }

    /// Takes connection `id` out of the table.
    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.release_key(id);
        let entry = self
            .slots
            .get_mut(id.slot as usize)
            .filter(|entry| entry.generation == id.generation)?;
        let connection = entry.connection.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(id.slot);
        Some(connection)
    }
}
