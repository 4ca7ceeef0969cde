//! Counts down what is still to come.

/// Subtracts one. A count below zero would keep a lock or a client for ever. It is better to fail
/// at once and be restarted.
///
/// # Panics
/// If the count is zero.
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
