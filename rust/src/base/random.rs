//! Random bytes that cannot be guessed.

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// 32 hexadecimal digits that cannot be guessed.
///
/// # Errors
/// If the kernel has no random numbers.
pub(crate) fn nonce() -> Result<[u8; 32], Errno> {
    let mut random = [0; 16];
    if getrandom(&mut random, GetRandomFlags::empty())? != random.len() {
        return Err(Errno::AGAIN);
    }
    let mut digits = [0; 32];
    for (two, byte) in digits.chunks_exact_mut(2).zip(random) {
        two[0] = DIGITS[usize::from(byte >> 4)];
        two[1] = DIGITS[usize::from(byte & 15)];
    }
    Ok(digits)
}
