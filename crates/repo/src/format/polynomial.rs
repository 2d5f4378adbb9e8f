//! restic's chunker polynomial: we don't use it, but restic refuses a config without an irreducible one of degree 53.
//!
//! Polynomials over GF(2) are bit sets; the test for irreducibility is Ben-Or's: f of degree n is irreducible when
//! gcd(f, x^(2^i) − x) = 1 for every i ≤ n/2.

use crate::crypto;
use retoma_core::{Error, Result};

const DEGREE: u32 = 53;

fn degree(f: u128) -> u32 {
    f.ilog2()
}

fn reduce(mut a: u128, f: u128) -> u128 {
    while a != 0 && degree(a) >= degree(f) {
        a ^= f << (degree(a) - degree(f));
    }
    a
}

fn square(a: u128, f: u128) -> u128 {
    let mut result = 0;
    for bit in 0..=DEGREE {
        if a >> bit & 1 == 1 {
            result ^= 1 << (2 * bit);
        }
    }
    reduce(result, f)
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, reduce(a, b));
    }
    a
}

/// Whether `f` is irreducible and of the degree that restic wants.
pub fn is_irreducible(f: u64) -> bool {
    let f = u128::from(f);
    if f == 0 || degree(f) != DEGREE {
        return false;
    }
    let mut power = 2;
    (0..DEGREE / 2).all(|_| {
        power = square(power, f);
        gcd(f, power ^ 2) == 1
    })
}

/// A random irreducible polynomial. About one in 53 is; a hundred thousand tries without one mean a broken generator.
///
/// # Errors
/// `Unavailable` where the system gives no random numbers.
pub fn random() -> Result<u64> {
    for _ in 0..100_000 {
        let mut bytes = [0; 8];
        crypto::random(&mut bytes)?;
        let candidate = u64::from_le_bytes(bytes) & ((1 << DEGREE) - 1) | 1 << DEGREE | 1;
        if is_irreducible(candidate) {
            return Ok(candidate);
        }
    }
    Err(Error::internal("the random number generator gives no irreducible polynomial"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restics_own_polynomials_are_irreducible() {
        assert!(is_irreducible(0x003D_A335_8B4D_C173));
    }

    #[test]
    fn products_are_not() {
        // x · (anything of degree 52), and (x + 1) · (anything).
        assert!(!is_irreducible(1 << 53));
        assert!(!is_irreducible(0b11 << 52 | 0b11));
    }

    #[test]
    fn random_ones_are_irreducible_and_differ() {
        let (a, b) = (random().unwrap(), random().unwrap());
        assert!(is_irreducible(a) && is_irreducible(b));
        assert_ne!(a, b);
    }
}
