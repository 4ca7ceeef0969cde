use super::*;
use crate::resp::inline::Dialect;

const STRANGER: Limits = Limits { is_authenticated: false, ..USUAL };
const USUAL: Limits = Limits { is_authenticated: true, argument: 512 * 1024 * 1024 };

fn cut_all(stream: &[u8]) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
    let mut request = Request::default();
    let mut commands = Vec::new();
    let mut start = 0;
    while let Cut::Complete(length) = request.cut(&stream[start..], USUAL)? {
        let raw = &stream[start..start + length];
        commands.push(request.args(raw).iter().map(<[u8]>::to_vec).collect());
        request.reset();
        start += length;
    }
    Ok(commands)
}

#[test]
fn a_pipeline_is_cut_into_its_commands() {
    let commands =
        cut_all(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n*0\r\n*-1\r\n\r\n*1\r\n$0\r\n\r\n");
    let expected: Vec<Vec<&[u8]>> =
        vec![vec![b"GET", b"k"], vec![b"PING"], vec![], vec![], vec![], vec![b""]];
    let expected: Vec<Vec<Vec<u8>>> =
        expected.iter().map(|c| c.iter().map(|a| a.to_vec()).collect()).collect();
    assert_eq!(commands, Ok(expected));
}

#[test]
fn a_command_is_cut_whole_however_it_arrives() {
    for whole in [
        b"*3\r\n$3\r\nSET\r\n$12\r\nk\r\n$1\r\nx\r\n*1\r\n$2\r\n\r\n\r\n".as_slice(),
        b"set k \"a b\"\r\n",
        b"set k v\n",
    ] {
        let mut request = Request::default();
        for have in 0..whole.len() {
            assert_eq!(request.cut(&whole[..have], USUAL), Ok(Cut::Incomplete), "{have}");
        }
        assert_eq!(request.cut(whole, USUAL), Ok(Cut::Complete(whole.len())));
        assert_eq!(request.args(whole).len(), 3);
    }
}

#[test]
fn malformed_input_is_refused_in_redis_words() {
    for (bytes, error) in [
        (b"*+1\r\n".as_slice(), "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"* 1\r\n", "invalid multibulk length"),
        (b"*1 \r\n", "invalid multibulk length"),
        (b"*\r\n", "invalid multibulk length"),
        (b"*1e3\r\n", "invalid multibulk length"),
        (b"*2147483648\r\n", "invalid multibulk length"),
        (b"*9223372036854775808\r\n", "invalid multibulk length"),
        (b"*1\r\n$04\r\n", "invalid bulk length"),
        (b"*1\r\n$\r\n", "invalid bulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$-0\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n$9223372036854775808\r\n", "invalid bulk length"),
        (b"*1\r\n*1\r\n", "expected '$', got '*'"),
        (b"*1\r\n\x01", "expected '$', got '\x01'"),
        (b"*1\rX", "invalid CRLF in request"),
        (b"*1\r\n$3\rXfoo\r\n", "invalid CRLF in request"),
        (b"*1\r\n$3\r\nfooXX", "invalid CRLF in request"),
        (b"set \"a\r\n", "unbalanced quotes in request"),
    ] {
        assert_eq!(cut_all(bytes), Err(error.into()), "{bytes:?}");
    }
}

#[test]
fn long_lines_are_refused_before_they_fill_memory() {
    let line = |head: &[u8], filler: u8| [head, &vec![filler; INLINE_LIMIT + 2]].concat();
    assert_eq!(cut_all(&line(b"", b'a')), Err("too big inline request".into()));
    assert_eq!(cut_all(&line(b"*", b'1')), Err("too big mbulk count string".into()));
    assert_eq!(cut_all(&line(b"*1\r\n$", b'1')), Err("too big bulk count string".into()));
}

#[test]
fn limits_are_small_before_authentication() {
    let mut request = Request::default();
    assert_eq!(request.cut(b"*11\r\n", STRANGER), Err("unauthenticated multibulk length".into()));
    request.reset();
    assert_eq!(
        request.cut(b"*1\r\n$16385\r\n", STRANGER),
        Err("unauthenticated bulk length".into())
    );
    request.reset();
    assert_eq!(request.cut(b"*10\r\n$16384\r\n", STRANGER), Ok(Cut::Incomplete));
}

proptest::proptest! {
    #[test]
    fn what_we_write_is_what_we_read(
        args in proptest::collection::vec(proptest::collection::vec(0u8.., 0..40), 1..20),
        split in 0usize..400,
    ) {
        let mut stream = Vec::new();
        push_command(&mut stream, args.iter().map(Vec::as_slice));
        let mut request = Request::default();
        if split < stream.len() {
            proptest::prop_assert_eq!(request.cut(&stream[..split], USUAL), Ok(Cut::Incomplete));
        }
        proptest::prop_assert_eq!(request.cut(&stream, USUAL), Ok(Cut::Complete(stream.len())));
        let read: Vec<_> = request.args(&stream).iter().map(<[u8]>::to_vec).collect();
        proptest::prop_assert_eq!(read, args);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(0u8.., 0..600)) {
        let _ = cut_all(&bytes);
    }
}

#[test]
fn a_line_that_has_come_at_once_may_be_longer_as_the_server_has_it() {
    for (dialect, most) in [(Dialect::Redis, 81_919), (Dialect::Valkey, 65_536)] {
        let line = |length: usize| [&vec![b'a'; length][..], b"\n"].concat();
        let cut = |line: &[u8]| Request::default().cut_from(line, USUAL, dialect);
        assert_eq!(cut(&line(most)), Ok(Cut::Complete(most + 1)));
        assert_eq!(cut(&line(most + 1)), Err("too big inline request".into()));
        assert_eq!(cut(&vec![b'a'; INLINE_LIMIT]), Ok(Cut::Incomplete));
        assert_eq!(cut(&vec![b'a'; INLINE_LIMIT + 1]), Err("too big inline request".into()));
    }
}
