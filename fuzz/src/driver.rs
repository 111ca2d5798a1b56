//! Mutates valid inputs, the same way each time.

/// Inputs tried for each seed, unless `$TIDEGATE_FUZZ_ROUNDS` says otherwise.
const ROUNDS: u64 = 20_000;

/// Longest input: enough for every parser's structure, short enough to try many.
const MAX_LEN: usize = 1 << 16;

/// Values that parsers get wrong: bounds of every width.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x8000_0000,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// Calls `target` with every seed, with nothing, and with `rounds` mutations of each seed. Returns
/// the number of calls.
pub fn smoke(target: impl Fn(&[u8]), seeds: &[Vec<u8>]) -> u64 {
    let rounds = std::env::var("TIDEGATE_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok());
    let rounds: u64 = rounds.unwrap_or(ROUNDS);
    target(&[]);
    let mut calls = 1;
    for (n, seed) in (0..).zip(seeds) {
        target(seed);
        calls += 1;
        let mut dice = Dice(n);
        for _ in 0..rounds {
            let mut input = seed.clone();
            for _ in 0..=dice.below(4) {
                mutate(&mut input, seeds, &mut dice);
            }
            input.truncate(MAX_LEN);
            target(&input);
            calls += 1;
        }
    }
    calls
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], dice: &mut Dice) {
    let at = dice.below(input.len());
    match dice.below(9) {
        0 => change(input, at, |byte| byte ^ (1 << (at & 7))),
        1 => change(input, at, |byte| byte.wrapping_add(1)),
        2 => change(input, at, |byte| byte.wrapping_sub(1)),
        3 => input.truncate(at),
        4 => {
            let end = (at + 1 + dice.below(16)).min(input.len());
            input.drain(at.min(end)..end);
        }
        5 => {
            let byte = u8::try_from(dice.below(256)).unwrap_or_default();
            let many = 1 + dice.below(16);
            input.splice(at..at, std::iter::repeat_n(byte, many));
        }
        6 => {
            let edge = EDGES[dice.below(EDGES.len())];
            let width = 1 << dice.below(4);
            let little = edge.to_le_bytes();
            let mut bytes = little[..width].to_vec();
            if dice.below(2) == 0 {
                bytes.reverse();
            }
            let end = (at + width).min(input.len());
            input.splice(at..end, bytes);
        }
        7 => {
            // A piece of itself or of another seed, somewhere else.
            let other = &seeds[dice.below(seeds.len())];
            let from = dice.below(other.len());
            let end = (from + 1 + dice.below(64)).min(other.len());
            let piece = other[from.min(end)..end].to_vec();
            input.splice(at..at, piece);
        }
        _ => {
            let end = (at + 1 + dice.below(64)).min(input.len());
            let piece = input[at.min(end)..end].to_vec();
            let to = dice.below(input.len());
            input.splice(to..to, piece);
        }
    }
}

fn change(input: &mut [u8], at: usize, with: impl Fn(u8) -> u8) {
    if let Some(byte) = input.get_mut(at) {
        *byte = with(*byte);
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let roll = usize::try_from((z ^ (z >> 31)) >> 33).unwrap_or_default();
        if end == 0 { 0 } else { roll % end }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn inputs_are_many_different_ones_and_the_same_each_time() {
        let seeds = [b"a valid input of some length".to_vec(), b"{\"another\": 1}".to_vec()];
        let collect = || {
            let seen = RefCell::new(BTreeSet::new());
            let calls = smoke(|input| _ = seen.borrow_mut().insert(input.to_vec()), &seeds);
            (calls, seen.into_inner())
        };
        let (calls, seen) = collect();
        assert!(calls > 1000 && seen.len() as u64 > calls / 2);
        assert!(seen.contains(&Vec::new()) && seen.contains(&seeds[0]));
        assert_eq!(collect().1, seen);
    }
}
