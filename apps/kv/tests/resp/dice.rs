//! Random commands: a few keys, values and numbers that are likely to hurt.

/// Numbers that only depend on a seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    fn key(&mut self) -> Vec<u8> {
        self.pick(&["a", "b", "c", "key:1", "key:2", "k[x]", "", "\u{1}\r\n"]).into()
    }

    fn value(&mut self) -> Vec<u8> {
        const VALUES: &[&str] = &[
            "",
            "0",
            "1",
            "-1",
            "42",
            "-0",
            "007",
            "+5",
            " 1",
            "3.0e3",
            "0.1",
            "-1.5",
            "1e400",
            "nan",
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "hello world",
            "a\r\nb",
            "\u{0}",
            "99999999999999999999.5",
            "1.",
            ".5",
            "inf",
            "0.30000000000000004",
        ];
        self.pick(VALUES).into()
    }

    fn number(&mut self) -> Vec<u8> {
        const NUMBERS: &[&str] = &[
            "0",
            "1",
            "-1",
            "3",
            "5",
            "10",
            "-3",
            "100",
            "x",
            "1.5",
            "",
            "9223372036854775807",
            "-9223372036854775808",
            "2000000",
            "-7",
        ];
        self.pick(NUMBERS).into()
    }

    /// A time to live in seconds or milliseconds: in the far future, at once, or nonsense. Hardly
    /// any comes twice, since the two clocks differ by some milliseconds.
    fn ttl(&mut self) -> Vec<u8> {
        const TIMES: &[&str] = &["0", "-1", "x", "9223372036854775807", "9223372036854775"];
        if self.below(2) == 0 {
            return self.pick(TIMES).into();
        }
        (1_000_000 + self.below(100_000) * 10_000).to_string().into()
    }

    /// An end in seconds or milliseconds.
    fn end(&mut self) -> Vec<u8> {
        const ENDS: &[&str] =
            &["9999999999", "9999999999999", "99999999999999", "1", "0", "-5", "y", "4000000000"];
        self.pick(ENDS).into()
    }

    fn pattern(&mut self) -> Vec<u8> {
        const PATTERNS: &[&str] =
            &["*", "key:*", "?", "[a-b]", "[^a]", "k\\[x\\]", "k[[]x]", "", "*:*", "[", "a\\"];
        self.pick(PATTERNS).into()
    }

    pub(crate) fn command(&mut self) -> Vec<Vec<u8>> {
        let name = self.pick(NAMES);
        let mut arguments: Vec<Vec<u8>> = vec![name.into()];
        // Now and then too many or too few arguments.
        if self.below(40) == 0 {
            arguments.extend((0..self.below(5)).map(|_| self.value()));
            return arguments;
        }
        let mut args: Vec<Vec<u8>> = match name {
            "GET" | "GETDEL" | "STRLEN" | "TYPE" | "INCR" | "DECR" | "TTL" | "PTTL"
            | "EXPIRETIME" | "PERSIST" => vec![self.key()],
            "SET" => vec![self.key(), self.value()],
            "SETNX" | "GETSET" | "APPEND" => vec![self.key(), self.value()],
            "SETEX" | "PSETEX" => vec![self.key(), self.ttl(), self.value()],
            "GETEX" => vec![self.key()],
            "MSET" | "MSETNX" => vec![self.key(), self.value(), self.key(), self.value()],
            "MGET" | "DEL" | "UNLINK" | "EXISTS" => vec![self.key(), self.key(), self.key()],
            "GETRANGE" => vec![self.key(), self.number(), self.number()],
            "SETRANGE" => vec![self.key(), self.number(), self.value()],
            "INCRBY" | "DECRBY" => vec![self.key(), self.number()],
            "INCRBYFLOAT" => vec![self.key(), self.value()],
            "EXPIRE" | "PEXPIRE" => vec![self.key(), self.ttl()],
            "EXPIREAT" | "PEXPIREAT" => vec![self.key(), self.end()],
            "RENAME" => vec![self.key(), self.key()],
            "KEYS" => vec![self.pattern()],
            "ECHO" | "PING" => vec![self.value()],
            _ => Vec::new(),
        };
        match name {
            "SET" => {
                self.options(
                    &mut args,
                    &["NX", "XX", "GET", "KEEPTTL", "ex", "PX", "EXAT", "pxat"],
                );
            }
            "GETEX" => self.options(&mut args, &["PERSIST", "EX", "px", "EXAT", "PXAT", "NX"]),
            "EXPIRE" | "PEXPIRE" | "EXPIREAT" | "PEXPIREAT" => {
                self.options(&mut args, &["nx", "XX", "GT", "LT", "FOO"]);
            }
            _ => {}
        }
        arguments.append(&mut args);
        arguments
    }

    fn options(&mut self, args: &mut Vec<Vec<u8>>, of: &[&str]) {
        for _ in 0..self.below(8).saturating_sub(4) {
            let option = self.pick(of);
            args.push(option.into());
            let argument = match option.to_ascii_uppercase().as_str() {
                "EX" | "PX" => Some(self.ttl()),
                "EXAT" | "PXAT" => Some(self.end()),
                _ => None,
            };
            args.extend(argument);
        }
    }
}

const NAMES: &[&str] = &[
    "GET",
    "GET",
    "SET",
    "SET",
    "SET",
    "SET",
    "GETDEL",
    "STRLEN",
    "TYPE",
    "INCR",
    "DECR",
    "TTL",
    "PTTL",
    "EXPIRETIME",
    "PERSIST",
    "SETNX",
    "GETSET",
    "APPEND",
    "SETEX",
    "PSETEX",
    "GETEX",
    "GETEX",
    "MSET",
    "MSETNX",
    "MGET",
    "DEL",
    "UNLINK",
    "EXISTS",
    "GETRANGE",
    "SETRANGE",
    "INCRBY",
    "DECRBY",
    "INCRBYFLOAT",
    "INCRBYFLOAT",
    "EXPIRE",
    "EXPIRE",
    "PEXPIRE",
    "EXPIREAT",
    "PEXPIREAT",
    "RENAME",
    "KEYS",
    "ECHO",
    "PING",
    "MULTI",
    "EXEC",
    "DISCARD",
    "nosuch",
];
