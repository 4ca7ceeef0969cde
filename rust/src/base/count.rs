//! Counting down what is still to come.

/// One less. A count that goes below nothing would keep a lock, or a client, for ever: better to fall
/// at once, and to be started again.
///
/// # Panics
/// If there was nothing to come.
#[inline]
pub(crate) fn count_down(count: &mut usize) {
    *count = count.checked_sub(1).expect("more has come than was to come");
}

#[cfg(test)]
mod tests {
    use super::count_down;

    #[test]
    fn counts_down_to_nothing() {
        let mut count = 2;
        count_down(&mut count);
        count_down(&mut count);
        assert_eq!(count, 0);
    }

    #[test]
    #[should_panic(expected = "more has come")]
    fn falls_below_nothing() {
        count_down(&mut 0);
    }
}
