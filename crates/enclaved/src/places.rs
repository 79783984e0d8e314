//! Places for clients, of which no user takes all.
//!
//! A client holds a place for as long as the daemon has something of it: its connection, a descriptor that it has passed and that
//! does not close. A user has a share of the places, and the last of them are root's, so that an administrator gets in
//! whatever all others do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::peer::Peer;

/// How many places there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// For all.
    pub all: usize,
    /// Of these, for one user that is not root.
    pub of_a_user: usize,
    /// Of these, for root alone.
    pub of_root: usize,
}

impl Room {
    /// So many for all, a quarter for each user, and a sixteenth for root.
    pub const fn of(all: usize) -> Self {
        Self {
            all,
            of_a_user: all / 4,
            of_root: all / 16,
        }
    }

    /// So many for whoever comes first.
    pub const fn without_shares(all: usize) -> Self {
        Self {
            all,
            of_a_user: all,
            of_root: 0,
        }
    }
}

/// Places, and who has them. Clones share the same.
#[derive(Debug, Clone)]
pub struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    room: Room,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// By user; none for users who have none.
    by_user: BTreeMap<u32, usize>,
}

/// A place. Dropping it makes room.
#[derive(Debug)]
pub struct Place {
    places: Places,
    user: u32,
}

impl Places {
    /// None of them is taken.
    pub fn new(room: Room) -> Self {
        Self(Arc::new(Shared {
            room,
            taken: Mutex::default(),
        }))
    }

    /// A place for `client`, if it may have one.
    pub fn take(&self, client: Peer) -> Option<Place> {
        let room = self.0.room;
        let mut taken = self.taken();
        let own = taken.by_user.get(&client.user).copied().unwrap_or_default();
        let has_room = if client.is_root() {
            taken.all < room.all
        } else {
            own < room.of_a_user && taken.all < room.all.saturating_sub(room.of_root)
        };
        if !has_room {
            return None;
        }
        taken.all += 1;
        taken.by_user.insert(client.user, own + 1);
        Some(Place {
            places: self.clone(),
            user: client.user,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Some(own) = taken.by_user.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                taken.by_user.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::tests::user;

    /// As many places as `client` gets.
    fn all_of(places: &Places, client: Peer) -> Vec<Place> {
        std::iter::from_fn(|| places.take(client)).collect()
    }

    #[test]
    fn a_user_has_a_share_and_others_have_theirs() {
        let places = Places::new(Room::of(64));

        let first = all_of(&places, user(1));
        let second = all_of(&places, user(2));

        assert_eq!((first.len(), second.len()), (16, 16));
        drop(first);
        assert_eq!(all_of(&places, user(1)).len(), 16);
    }

    #[test]
    fn many_users_together_leave_root_its_places() {
        let places = Places::new(Room::of(64));
        let users: Vec<_> = (1..100)
            .flat_map(|number| all_of(&places, user(number)))
            .collect();

        let root = all_of(&places, user(0));

        assert_eq!((users.len(), root.len()), (60, 4));
        drop(users);
        assert_eq!(all_of(&places, user(0)).len(), 60);
        assert!(all_of(&places, user(1)).len() == 16);
    }
}
