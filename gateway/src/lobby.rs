//! Who may have a handshake: the cost of callers before they have proved anything.
//!
//! An address where a worker was seen lately is *known*: its handshakes have places of their own, so
//! that no flood keeps an attached worker from another connection. All others share a few places and
//! a rate, each address no more than a part of both, and wait a little for them. What is remembered
//! is bounded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use crate::config::CERTIFICATE_S;

/// How long a connection waits for its turn, and then for a place.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that wait at once: of strangers, and of known addresses.
const WAITING: usize = 1024;
/// The least places of one address, and the part of all of them that is more.
const EACH_LEAST: usize = 8;
const EACH_PART: usize = 4;
/// Handshakes a second of strangers, and of one of their addresses.
const RATE: u32 = 200;
const EACH_RATE: u32 = 50;
/// Handshakes a second of an address where a worker is: a whole cluster may stand behind it.
const KNOWN_RATE: u32 = 400;
/// Seconds of idleness that may be caught up on at once.
const BURST: u32 = 4;
/// Bits of IPv6 that one host has to itself, and that one customer is given.
const HOST: u8 = 64;
const SITE: u8 = 48;
/// Addresses remembered.
const ADDRESSES: usize = 4096;
/// A worker comes back within its certificate's life, or has to attach anew.
const KNOWN_FOR: Duration = Duration::from_secs(CERTIFICATE_S as u64);

/// An address, or of IPv6 a network: its first address, and how many of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin(IpAddr, u8);

impl Origin {
    /// The network that one host of IPv6 has to itself: a worker is known by it.
    pub(crate) fn of(address: IpAddr) -> Self {
        Self::cut(address, HOST)
    }

    /// The network that whoever has one of these has a choice of: strangers are counted by it.
    fn site(self) -> Self {
        Self::cut(self.0, SITE)
    }

    fn cut(address: IpAddr, bits: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & (u128::MAX << (128 - bits));
                Self(IpAddr::V6(network.into()), bits)
            }
            short => Self(short, 32),
        }
    }
}

/// An allowance that refills, as one virtual queue (generic cell rate algorithm).
#[derive(Clone, Copy, Debug)]
struct Allowance {
    spent_until: Instant,
}

impl Allowance {
    fn new(now: Instant, rate: u32) -> Self {
        Self { spent_until: now.checked_sub(burst(rate)).unwrap_or(now) }
    }

    /// Books one, and says how long to wait for it; books nothing when that is longer than `most`.
    fn take(&mut self, now: Instant, rate: u32, most: Duration) -> Option<Duration> {
        let earliest = now.checked_sub(burst(rate)).unwrap_or(now);
        let start = self.spent_until.max(earliest);
        let wait = start.saturating_duration_since(now);
        (wait <= most).then(|| {
            self.spent_until = start + Duration::from_secs(1) / rate;
            wait
        })
    }
}

fn burst(rate: u32) -> Duration {
    // As much time as the burst costs, less the one that is always allowed.
    Duration::from_secs(BURST.into()).saturating_sub(Duration::from_secs(1) / rate)
}

/// One address.
#[derive(Debug)]
struct Known {
    allowance: Allowance,
    /// Places of strangers from here: cloned by whoever has one or waits for one.
    places: Arc<Semaphore>,
    /// When a worker was last seen here.
    worker: Option<Instant>,
}

/// The places and what is known of addresses.
#[derive(Debug)]
pub(crate) struct Lobby {
    each: usize,
    strangers: Arc<Semaphore>,
    workers: Arc<Semaphore>,
    strangers_waiting: Arc<Semaphore>,
    workers_waiting: Arc<Semaphore>,
    addresses: Mutex<Addresses>,
}

#[derive(Debug)]
struct Addresses {
    all: Allowance,
    by_origin: HashMap<Origin, Known>,
}

/// The right to a handshake, and for a stranger to its connection after it.
#[derive(Debug)]
pub(crate) struct Place {
    permit: OwnedSemaphorePermit,
    /// `None` at a known address, as long as it may be a worker's.
    of_origin: Option<OwnedSemaphorePermit>,
    /// Where a known address has those of its strangers.
    places: Option<Arc<Semaphore>>,
}

/// Marks the answer to a caller who has just proved to be a worker: its address is known from then on,
/// so that its first connection with a certificate already has a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proved;

/// A connection that was accepted and has to wait for its place.
#[derive(Debug)]
pub(crate) struct Ticket {
    wait: Duration,
    /// Places of the origin's strangers.
    places: Arc<Semaphore>,
    is_known: bool,
    _waiting: OwnedSemaphorePermit,
}

impl Lobby {
    /// `strangers` and `workers`: connections of either.
    pub(crate) fn new(strangers: usize, workers: usize) -> Self {
        Self {
            each: (strangers / EACH_PART).max(EACH_LEAST).min(strangers),
            strangers: Arc::new(Semaphore::new(strangers)),
            workers: Arc::new(Semaphore::new(workers)),
            strangers_waiting: Arc::new(Semaphore::new(WAITING)),
            workers_waiting: Arc::new(Semaphore::new(WAITING)),
            addresses: Mutex::new(Addresses {
                all: Allowance::new(Instant::now(), RATE),
                by_origin: HashMap::new(),
            }),
        }
    }

    /// Looks at a connection as it is accepted, without waiting; `None` means to close it.
    pub(crate) fn look(&self, origin: Origin) -> Option<Ticket> {
        self.look_at(origin, Instant::now())
    }

    fn look_at(&self, origin: Origin, now: Instant) -> Option<Ticket> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = addresses.by_origin.get_mut(&origin).filter(|k| k.has_worker(now)) {
            let waiting = Arc::clone(&self.workers_waiting).try_acquire_owned().ok()?;
            let wait = known.allowance.take(now, KNOWN_RATE, PATIENCE)?;
            let places = Arc::clone(&known.places);
            return Some(Ticket { wait, places, is_known: true, _waiting: waiting });
        }
        let waiting = Arc::clone(&self.strangers_waiting).try_acquire_owned().ok()?;
        let site = origin.site();
        let own = match addresses.by_origin.get_mut(&site) {
            Some(known) => known.allowance.take(now, EACH_RATE, PATIENCE)?,
            None => Duration::ZERO,
        };
        // Whoever has no part of this one is not remembered either.
        let shared = addresses.all.take(now, RATE, PATIENCE)?;
        let places = Arc::clone(&addresses.remember(site, self.each, now)?.places);
        Some(Ticket { wait: own.max(shared), places, is_known: false, _waiting: waiting })
    }

    /// Waits for the place of a ticket, for a while.
    pub(crate) async fn enter(&self, ticket: Ticket) -> Option<Place> {
        sleep(ticket.wait).await;
        timeout(PATIENCE, self.place(ticket.places, ticket.is_known)).await.ok().flatten()
    }

    async fn place(&self, places: Arc<Semaphore>, is_known: bool) -> Option<Place> {
        if is_known {
            let permit = Arc::clone(&self.workers).acquire_owned().await.ok()?;
            return Some(Place { permit, of_origin: None, places: Some(places) });
        }
        // First one of the origin's, then one of all: who waits for the second keeps no other origin
        // from it.
        let own = places.acquire_owned().await.ok()?;
        let permit = Arc::clone(&self.strangers).acquire_owned().await.ok()?;
        Some(Place { permit, of_origin: Some(own), places: None })
    }

    /// The place of a connection that turned out to be a stranger's: the one it has. At a known address
    /// it counts among that address's strangers from now on, or is none: a worker that attaches there
    /// comes in whatever strangers do elsewhere.
    pub(crate) fn of_stranger(&self, place: Place) -> Option<Place> {
        let Place { permit, of_origin, places } = place;
        let of_origin = match (of_origin, places) {
            (None, Some(places)) => Some(places.try_acquire_owned().ok()?),
            (own, _) => own,
        };
        Some(Place { permit, of_origin, places: None })
    }

    /// A worker attached or showed its certificate here.
    pub(crate) fn worker_seen(&self, origin: Origin) {
        let now = Instant::now();
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = addresses.remember(origin, self.each, now) {
            known.worker = Some(now);
        }
    }
}

impl Addresses {
    /// What is known of an origin, which begins with one handshake; `None` when there is no room for
    /// another.
    fn remember(&mut self, origin: Origin, each: usize, now: Instant) -> Option<&mut Known> {
        let by_origin = &mut self.by_origin;
        if by_origin.len() >= ADDRESSES && !by_origin.contains_key(&origin) {
            by_origin.retain(|_, known| !known.is_forgettable(now));
            if by_origin.len() >= ADDRESSES {
                return None;
            }
        }
        Some(by_origin.entry(origin).or_insert_with(|| {
            let mut allowance = Allowance::new(now, EACH_RATE);
            let _ = allowance.take(now, EACH_RATE, PATIENCE);
            Known { allowance, places: Arc::new(Semaphore::new(each)), worker: None }
        }))
    }
}

impl Known {
    fn has_worker(&self, now: Instant) -> bool {
        self.worker.is_some_and(|seen| now.duration_since(seen) < KNOWN_FOR)
    }

    /// Nobody is here, and a fresh start would allow no more.
    fn is_forgettable(&self, now: Instant) -> bool {
        !self.has_worker(now)
            && Arc::strong_count(&self.places) == 1
            && self.allowance.spent_until + Duration::from_secs(BURST.into()) <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(last: u8) -> Origin {
        Origin::of(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn a_host_of_ipv6_is_its_network() {
        let of = |text: &str| Origin::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.7"), origin(7));
    }

    #[tokio::test]
    async fn one_address_cannot_have_all_places_and_a_worker_needs_none_of_them() {
        let lobby = Lobby::new(64, 4);
        let mut held = Vec::new();
        for _ in 0..16 {
            held.push(lobby.enter(lobby.look(origin(1)).unwrap()).await.unwrap());
        }
        let more = lobby.enter(lobby.look(origin(1)).unwrap());
        let waited = timeout(Duration::from_millis(50), more).await;
        assert!(waited.is_err(), "a quarter at most");
        let other = lobby.enter(lobby.look(origin(2)).unwrap()).await.unwrap();
        assert!(other.of_origin.is_some());
        lobby.worker_seen(origin(1));
        let worker = lobby.enter(lobby.look(origin(1)).unwrap()).await.unwrap();
        assert!(worker.of_origin.is_none());
        let later = Instant::now() + KNOWN_FOR;
        assert!(!lobby.look_at(origin(1), later).unwrap().is_known, "for a while only");
    }

    #[test]
    fn the_rate_holds_for_each_address_and_for_all() {
        let (lobby, now) = (Lobby::new(10_000, 4), Instant::now());
        let let_in =
            |n| (0..2000).filter(|_| lobby.look_at(origin(n), now).is_some()).count() as u64;
        let most = |rate: u32| u64::from(rate) * (u64::from(BURST) + PATIENCE.as_secs());
        let one = let_in(1);
        assert!(one.abs_diff(most(EACH_RATE)) <= 5, "{one}");
        let all = one + (2..10).map(let_in).sum::<u64>();
        assert!(all.abs_diff(most(RATE)) <= 5, "{all}");
    }

    /// Who has a network of IPv6 has no more of the rate than who has an address, and a worker in it
    /// is known all the same.
    #[tokio::test]
    async fn a_network_of_ipv6_is_one_stranger() {
        let (lobby, now) = (Lobby::new(10_000, 4), Instant::now());
        let of = |subnet: u16| {
            let address = std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, subnet, 0, 0, 0, 1);
            Origin::of(IpAddr::from(address))
        };
        let let_in = (0..2000).filter(|n| lobby.look_at(of(*n), now).is_some()).count() as u64;
        let most = u64::from(EACH_RATE) * (u64::from(BURST) + PATIENCE.as_secs());
        assert!(let_in.abs_diff(most) <= 5, "{let_in}");
        assert_eq!(lobby.addresses.lock().unwrap().by_origin.len(), 1);
        assert!(lobby.look_at(origin(1), now).is_some(), "others have theirs");
        lobby.worker_seen(of(0));
        assert!(lobby.look(of(0)).unwrap().is_known);
        assert!(lobby.look(of(1)).is_none_or(|ticket| !ticket.is_known), "only where it is");
    }

    /// A flood from everywhere fills no table: a worker finds its way in once it is over.
    #[tokio::test]
    async fn who_is_turned_away_is_not_remembered() {
        let (lobby, mut now) = (Lobby::new(10_000, 4), Instant::now());
        let any = |n: u32| Origin::of(IpAddr::from(n.to_be_bytes()));
        // What has a ticket is held: none of it can be forgotten.
        let held: Vec<_> = (0..100_000).filter_map(|n| lobby.look_at(any(n), now)).collect();
        assert!(held.len() <= WAITING, "{}", held.len());
        assert_eq!(lobby.addresses.lock().unwrap().by_origin.len(), held.len());
        drop(held);
        now += Duration::from_secs(60);
        assert!(lobby.look_at(any(u32::MAX), now).is_some());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten() {
        let (lobby, mut now) = (Lobby::new(10_000, 4), Instant::now());
        let any = |n: u32| Origin::of(IpAddr::from(n.to_be_bytes()));
        for n in 0..10_000 {
            drop(lobby.look_at(any(n), now));
            now += Duration::from_micros(100);
        }
        let known = lobby.addresses.lock().unwrap().by_origin.len();
        assert!((1..=ADDRESSES).contains(&known), "{known}");
        now += Duration::from_secs(60);
        assert!(lobby.look_at(any(u32::MAX), now).is_some());
        assert!(lobby.addresses.lock().unwrap().by_origin.len() < ADDRESSES);
    }
}
