//! Any operations on a file, against a vector of bytes.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Write {
        at: usize,
        len: usize,
        seed: u64,
    },
    Append {
        len: usize,
        seed: u64,
    },
    Resize(usize),
    Read {
        at: usize,
        len: usize,
    },
    Sync,
    Rename,
    Reopen,
    /// The worker is killed after a sync, and another goes on.
    Kill,
}

/// A little around the edges of blocks and parts, mostly.
fn offset() -> impl Strategy<Value = usize> {
    prop_oneof![
        0..40 * MIB,
        (0_usize..40, 0_usize..3).prop_map(|(block, more)| (block * MIB + more).saturating_sub(1)),
        (0_usize..3, 0_usize..3)
            .prop_map(|(part, more)| (part * 16 * MIB + more).saturating_sub(1)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![1_usize..5000, 1_usize..3 * MIB];
    prop_oneof![
        4 => (offset(), len(), any::<u64>()).prop_map(|(at, len, seed)| Step::Write { at, len, seed }),
        3 => (prop_oneof![1_usize..5000, 1_usize..20 * MIB], any::<u64>())
            .prop_map(|(len, seed)| Step::Append { len, seed }),
        2 => offset().prop_map(Step::Resize),
        2 => (offset(), len()).prop_map(|(at, len)| Step::Read { at, len }),
        3 => Just(Step::Sync),
        1 => Just(Step::Rename),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
    ]
}

const LONGEST: usize = 70 * MIB;

async fn run(how: How, steps: Vec<Step>) {
    let mut worker = Worker::start(how).await;
    let mut file = worker.create("f").await;
    let mut name = "f";
    let mut model: Vec<u8> = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Write { at, len, seed } => {
                let new = bytes(seed, len);
                worker.write(file.0, at as u64, &new).await;
                model.resize(model.len().max(at + len), 0);
                model[at..at + len].copy_from_slice(&new);
            }
            Step::Append { len, seed } => {
                if model.len() + len <= LONGEST {
                    let new = bytes(seed, len);
                    worker.write(file.0, model.len() as u64, &new).await;
                    model.extend(new);
                }
            }
            Step::Resize(len) => {
                let size = Some(len as u64);
                let new = NewAttributes { size, ..NewAttributes::default() };
                let set = worker.results.set_attributes(worker.caller(), file.0, new).await;
                assert_eq!(set.unwrap().size, len as u64);
                model.resize(len, 0);
            }
            Step::Read { at, len } => {
                let len32 = u32::try_from(len).unwrap();
                let seen = worker.results.read(file.0, at as u64, len32).await.unwrap();
                let expected = &model[at.min(model.len())..(at + len).min(model.len())];
                assert!(seen == expected, "step {number}: read at {at} of {len}");
            }
            Step::Sync | Step::Kill => {
                worker.results.fsync(file.0).await.unwrap();
                if !how.asynchronous {
                    assert!(worker.home.bytes(name).unwrap() == model, "step {number}");
                }
                if matches!(step, Step::Kill) {
                    worker = worker.killed().await;
                    assert_eq!(worker.node(name), Some(file.0));
                }
            }
            Step::Rename => {
                let other = if name == "f" { "g" } else { "f" };
                worker.rename(name, other).await.unwrap();
                name = other;
            }
            Step::Reopen => {
                worker.close(file).await.unwrap();
                file.1 = worker.results.open(file.0, true).unwrap();
            }
        }
        assert_eq!(worker.results.attributes(file.0).unwrap().size, model.len() as u64);
    }
    worker.close(file).await.unwrap();
    let stated = worker.results.drain(boottime() + Duration::from_secs(600)).await;
    assert_eq!(stated.lost_files, 0);
    assert!(worker.home.bytes(name).unwrap() == model, "at the end");
    assert_eq!(worker.home.lock().files.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_file_at_home_is_what_was_written(
        steps in prop::collection::vec(step(), 1..25),
        asynchronous in any::<bool>(),
        tight in any::<bool>(),
    ) {
        let how = How {
            asynchronous,
            spool: tight.then_some(1),
            budget: if tight { 0 } else { 128 << 20 },
            ..PLAIN
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(run(how, steps));
    }
}
