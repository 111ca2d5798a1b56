//! One thread that runs every task of every simulated machine, in an order and at times drawn from
//! a seed.
//!
//! Whenever several tasks could go on, one is drawn; when none can, the clock jumps to the next
//! timer. A task belongs to a [`Host`], which can be paused between any two of its awaits and
//! killed at any of them. Work that the gateway gives to threads is waited for before the next task
//! is drawn, so that a seed is one run.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tidegate_kit::clock::Clock;

/// Where a task runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    /// Workers, the network, the store, whoever kills and pauses: never paused or killed itself.
    World,
    Replica(usize),
}

/// A task, for stopping it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskId(u64);

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Steps after which a schedule is going in circles.
const STEPS_MAX: u64 = 1_000_000;

/// Turns in which a spawned task gets through what it does between two waits for the world.
const TURNS: usize = 12;

/// Gateways' clocks show this when a simulation begins.
pub(super) const SECOND_ZERO: u64 = 1_800_000_000;

#[derive(Default)]
struct State {
    now: Duration,
    rng: u64,
    next: u64,
    timers: BTreeMap<(Duration, u64), Waker>,
    arrivals: Vec<(TaskId, Host, Job)>,
    stopped: Vec<TaskId>,
    killed: Vec<Host>,
    paused: BTreeMap<Host, Duration>,
    trace: Vec<String>,
    digest: blake3::Hasher,
}

/// A simulation: cheap to clone, given to everybody in it.
#[derive(Clone)]
pub(super) struct Sim {
    state: Arc<Mutex<State>>,
    ready: Arc<Mutex<BTreeSet<TaskId>>>,
}

struct Alarm {
    task: TaskId,
    ready: Arc<Mutex<BTreeSet<TaskId>>>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(self.task);
    }
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sim(..)")
    }
}

impl Sim {
    pub(super) fn new(seed: u64) -> Self {
        let state = State { rng: seed, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), ready: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the beginning.
    pub(super) fn now(&self) -> Duration {
        self.state().now
    }

    /// SplitMix64.
    pub(super) fn draw(&self) -> u64 {
        let mut state = self.state();
        state.rng = state.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(super) fn below(&self, end: u64) -> u64 {
        self.draw() % end.max(1)
    }

    /// True `percent` times of a hundred.
    pub(super) fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A span of milliseconds.
    pub(super) fn span(&self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.below(range.end - range.start))
    }

    pub(super) async fn sleep(&self, span: Duration) {
        let (end, mut armed) = (self.now() + span, false);
        poll_fn(|context| {
            let mut state = self.state();
            if state.now >= end {
                return Poll::Ready(());
            }
            if !armed {
                armed = true;
                state.next += 1;
                let key = (end, state.next);
                state.timers.insert(key, context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    pub(super) fn spawn(
        &self,
        host: Host,
        job: impl Future<Output = ()> + Send + 'static,
    ) -> TaskId {
        let mut state = self.state();
        state.next += 1;
        let id = TaskId(state.next);
        state.arrivals.push((id, host, Box::pin(job)));
        id
    }

    /// Ends one task at whichever await it stands.
    pub(super) fn stop(&self, task: TaskId) {
        self.state().stopped.push(task);
    }

    /// Ends all tasks of a host, each at whichever await it stands.
    pub(super) fn kill(&self, host: Host) {
        let mut state = self.state();
        state.killed.push(host);
        state.paused.remove(&host);
    }

    /// No task of the host goes on before `span` has passed.
    pub(super) fn pause(&self, host: Host, span: Duration) {
        let mut state = self.state();
        let until = state.now + span;
        state.paused.insert(host, until);
        state.next += 1;
        let key = (until, state.next);
        state.timers.insert(key, Waker::noop().clone());
    }

    /// A line of what happened. Ids, which differ from run to run, do not belong into it.
    pub(super) fn note(&self, line: std::fmt::Arguments<'_>) {
        let mut state = self.state();
        let line = format!("{:>9.3} {line}", state.now.as_secs_f64());
        state.digest.update(line.as_bytes());
        state.trace.push(line);
    }

    /// A line for readers only, with what differs from run to run.
    pub(super) fn remark(&self, line: std::fmt::Arguments<'_>) {
        let mut state = self.state();
        let line = format!("{:>9.3}   {line}", state.now.as_secs_f64());
        state.trace.push(line);
    }

    /// The newest lines.
    pub(super) fn trace(&self, lines: usize) -> String {
        let state = self.state();
        let from = state.trace.len().saturating_sub(lines);
        state.trace[from..].join("\n")
    }

    /// Digest of all lines: two runs of a seed have the same.
    pub(super) fn digest(&self) -> blake3::Hash {
        self.state().digest.finalize()
    }

    /// Runs `main` to its end on the world's host, and everything that it starts.
    pub(super) fn run(&self, main: impl Future<Output = ()> + Send + 'static) -> Result<(), Stuck> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(1)
            .build()
            .expect("a runtime of two threads");
        // For `spawn_blocking` and `timeout`; its own clock stands still.
        let _context = runtime.enter();
        let main = self.spawn(Host::World, main);
        let ended = self.until(main, &runtime);
        // What was started last holds on to the world that holds on to us.
        self.state().arrivals.clear();
        ended
    }

    fn until(&self, main: TaskId, runtime: &tokio::runtime::Runtime) -> Result<(), Stuck> {
        let mut tasks = BTreeMap::<TaskId, (Host, Job, Waker)>::new();
        for _ in 0..STEPS_MAX {
            self.settle(&mut tasks);
            let Some(id) = self.choose(&tasks) else {
                self.advance()?;
                continue;
            };
            let Some((host, job, waker)) = tasks.get_mut(&id) else { continue };
            let host = *host;
            let mut poll = || job.as_mut().poll(&mut Context::from_waker(waker)).is_ready();
            let done = if host == Host::World { poll() } else { before_threads(poll) };
            if done {
                tasks.remove(&id);
                if id == main {
                    return Ok(());
                }
            }
            // What the gateway spawned by itself goes on as far as it can.
            if runtime.metrics().num_alive_tasks() > 0 {
                for _ in 0..TURNS {
                    before_threads(|| runtime.block_on(tokio::task::yield_now()));
                }
            }
        }
        Err(Stuck::Circles)
    }

    /// Takes in what was started, lets go of what was stopped.
    fn settle(&self, tasks: &mut BTreeMap<TaskId, (Host, Job, Waker)>) {
        let (arrivals, stopped, killed) = {
            let mut state = self.state();
            let state = &mut *state;
            (
                std::mem::take(&mut state.arrivals),
                std::mem::take(&mut state.stopped),
                std::mem::take(&mut state.killed),
            )
        };
        for (id, host, job) in arrivals {
            let ready = Arc::clone(&self.ready);
            tasks.insert(id, (host, job, Waker::from(Arc::new(Alarm { task: id, ready }))));
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        }
        tasks.retain(|id, (host, ..)| !stopped.contains(id) && !killed.contains(host));
    }

    fn choose(&self, tasks: &BTreeMap<TaskId, (Host, Job, Waker)>) -> Option<TaskId> {
        let candidates: Vec<TaskId> = {
            let state = self.state();
            let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            ready.retain(|id| tasks.contains_key(id));
            let awake =
                |host: &Host| state.paused.get(host).is_none_or(|until| *until <= state.now);
            ready.iter().copied().filter(|id| awake(&tasks[id].0)).collect()
        };
        let drawn = match candidates.len() {
            0 => return None,
            1 => 0,
            n => usize::try_from(self.below(n as u64)).unwrap_or_default(),
        };
        let id = candidates[drawn];
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        Some(id)
    }

    fn advance(&self) -> Result<(), Stuck> {
        let waker = {
            let mut state = self.state();
            let ((at, _), waker) = state.timers.pop_first().ok_or(Stuck::Nothing)?;
            state.now = state.now.max(at);
            waker
        };
        waker.wake();
        Ok(())
    }
}

/// A simulation does not come to its end.
#[derive(Debug)]
pub(super) enum Stuck {
    /// Every task waits for another.
    Nothing,
    /// Too many steps.
    Circles,
}

/// Does `work`, and then what it gave to the one thread for blocking work, which does its jobs in order.
/// The thread is held meanwhile: were it quick, `work` would go on where it else has to wait, and a
/// seed would not be one run.
fn before_threads<T>(work: impl FnOnce() -> T) -> T {
    let (open, gate) = mpsc::channel::<()>();
    tokio::task::spawn_blocking(move || gate.recv());
    let worked = work();
    drop(open);
    let (done, wait) = mpsc::channel();
    tokio::task::spawn_blocking(move || done.send(()));
    let _ = wait.recv();
    worked
}

/// The clock of one host: it may be wrong, and be set.
#[derive(Clone)]
pub(super) struct HostClock {
    pub(super) sim: Sim,
    /// Seconds by which it is ahead.
    pub(super) ahead: Arc<std::sync::atomic::AtomicI64>,
}

impl std::fmt::Debug for HostClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostClock(..)")
    }
}

impl Clock for HostClock {
    fn now_unix(&self) -> u64 {
        let ahead = self.ahead.load(std::sync::atomic::Ordering::SeqCst);
        (SECOND_ZERO + self.sim.now().as_secs()).saturating_add_signed(ahead)
    }

    fn boottime(&self) -> Duration {
        // Machines were started long before.
        Duration::from_secs(1000) + self.sim.now()
    }
}
