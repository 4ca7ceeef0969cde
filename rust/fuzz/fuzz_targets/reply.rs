//! An instance's stream, whole, in pieces and handed on early, is cut into the same replies.
//! The first byte says how many of the next are the sizes of the pieces.
#![no_main]

#[allow(dead_code)]
#[path = "../../tests/pieces/cutting.rs"]
mod cutting;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&head, rest)) = data.split_first() else { return };
    let Some((sizes, stream)) = rest.split_at_checked(usize::from(head & 7)) else { return };
    let whole = cutting::replies(stream, &[]);
    assert_eq!(cutting::replies(stream, sizes), whole);
    assert_eq!(cutting::streamed(stream, sizes), whole.0.iter().sum::<usize>());
});
