//! Connections of each worker, so that one cannot take the places of all others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_kit::tls::PeerIdentity;
use tidegate_plan::LeaseId;

/// Connections of one rank's workers at once, an old and a new process together: a worker opens a
/// few for blocks and one for control.
const EACH: u32 = 64;

type Taken = Arc<Mutex<HashMap<(LeaseId, u16), u32>>>;

/// Counts connections by lease and rank.
#[derive(Debug, Default)]
pub(crate) struct Seats(Taken);

/// One connection's place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat(Taken, (LeaseId, u16));

impl Seats {
    /// A place for one more connection of a worker, if it may have one.
    pub(crate) fn take(&self, peer: &PeerIdentity) -> Option<Seat> {
        let worker = (peer.lease, peer.rank);
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(worker).or_default();
        if *count >= EACH {
            return None;
        }
        *count += 1;
        Some(Seat(Arc::clone(&self.0), worker))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Self(taken, worker) = self;
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(worker) {
            *count -= 1;
            if *count == 0 {
                taken.remove(worker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_plan::InstanceId;

    fn peer(rank: u16) -> PeerIdentity {
        PeerIdentity {
            lease: LeaseId::from_bytes([1; 16]),
            rank,
            instance: InstanceId::from_bytes([2; 16]),
            public_key: [3; 32],
            not_after: 0,
        }
    }

    #[test]
    fn each_worker_has_its_own_places_and_they_come_back() {
        let seats = Seats::default();
        let held: Vec<_> = (0..EACH).filter_map(|_| seats.take(&peer(0))).collect();
        assert_eq!(held.len(), EACH as usize);
        assert!(seats.take(&peer(0)).is_none());
        assert!(seats.take(&peer(1)).is_some());
        drop(held);
        assert!(seats.take(&peer(0)).is_some());
        assert!(seats.0.lock().unwrap().is_empty(), "nothing is kept of who has gone");
    }
}
