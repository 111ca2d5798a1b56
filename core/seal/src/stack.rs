//! Wiping the stack that a derivation has used.

use zeroize::Zeroize as _;

/// Overwrites that many 8-byte words of the stack below the caller's frame, where the temporaries
/// of the function it has just called lay. Best effort: the compiler may have kept a part of them
/// elsewhere, and registers are not touched.
#[inline(never)]
pub(crate) fn wipe_stack_below<const WORDS: usize>() {
    let mut used = [0_u64; WORDS];
    used.zeroize();
    std::hint::black_box(&used);
}
