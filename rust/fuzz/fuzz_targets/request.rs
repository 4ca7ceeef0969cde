//! A client's stream, whole and in pieces, is cut into the same commands; nothing panics.
//! The first byte says how many of the next are the sizes of the pieces.
#![no_main]

#[allow(dead_code)]
#[path = "../../tests/pieces/cutting.rs"]
mod cutting;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&head, rest)) = data.split_first() else { return };
    let Some((sizes, stream)) = rest.split_at_checked(usize::from(head & 7)) else { return };
    for is_known in [true, false] {
        let whole = cutting::commands(stream, &[], is_known, false);
        assert_eq!(cutting::commands(stream, sizes, is_known, head & 8 != 0), whole);
    }
    cutting::check_canonical(stream);
});
