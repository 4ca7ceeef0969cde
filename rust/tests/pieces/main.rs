//! The fuzz targets' twins: random streams, whole and in pieces, must be cut into the same.

mod cutting;

use cutting::{check_canonical, commands, replies, streamed};
use proptest::collection::vec;
use proptest::prelude::*;

/// Streams that look like the real thing more often than random bytes do.
fn like(words: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        8 => (0..words.len()).prop_map(move |index| words[index].to_vec()),
        1 => vec(any::<u8>(), 0..12),
    ];
    vec(word, 0..40).prop_map(|words| words.concat())
}

const REQUESTS: &[&[u8]] = &[
    b"*1\r\n",
    b"*2\r\n",
    b"*3\r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"$0\r\n",
    b"$1\r\n",
    b"$3\r\n",
    b"GET",
    b"k",
    b"\r\n",
    b"\n",
    b"\r",
    b"$11\r\n",
    b"PING\r\n",
    b"set k \"a b\"\r\n",
    b"'",
    b"\"",
    b"\\x41",
    b"*1\r\n$4\r\nPING\r\n",
    b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
    b"*01\r\n",
    b"$-1\r\n",
    b"\0",
    b" ",
];
const REPLIES: &[&[u8]] = &[
    b"+OK\r\n",
    b"-ERR x\r\n",
    b":1\r\n",
    b"$-1\r\n",
    b"$0\r\n\r\n",
    b"$3\r\na\r\n\r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"*2\r\n",
    b"%1\r\n",
    b"~2\r\n",
    b"|1\r\n",
    b"_\r\n",
    b"#t\r\n",
    b",1.5\r\n",
    b"=7\r\ntxt:abc\r\n",
    b"!3\r\nERR\r\n",
    b"(1\r\n",
    b">1\r\n",
    b"$5\r\n",
    b"\r\n",
    b"*01\r\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn commands_do_not_depend_on_the_pieces(
        stream in like(REQUESTS), sizes in vec(0u8..40, 0..8), is_known: bool, keeps: bool,
    ) {
        let whole = commands(&stream, &[], is_known, false);
        prop_assert_eq!(commands(&stream, &sizes, is_known, keeps), whole);
        check_canonical(&stream);
    }

    #[test]
    fn replies_do_not_depend_on_the_pieces(stream in like(REPLIES), sizes in vec(0u8..40, 0..8)) {
        let whole = replies(&stream, &[]);
        prop_assert_eq!(&replies(&stream, &sizes), &whole);
        prop_assert_eq!(streamed(&stream, &sizes), whole.0.iter().sum::<usize>());
    }

    #[test]
    fn random_bytes_are_cut_the_same(stream in vec(any::<u8>(), 0..300), sizes in vec(0u8..9, 0..4)) {
        prop_assert_eq!(commands(&stream, &sizes, true, true), commands(&stream, &[], true, false));
        prop_assert_eq!(replies(&stream, &sizes), replies(&stream, &[]));
    }
}
