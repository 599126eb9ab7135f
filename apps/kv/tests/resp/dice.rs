//! Numbers that depend on a seed only, and arguments that are likely to hurt.

/// A generator of numbers: the same for the same seed, everywhere.
pub(crate) struct Dice(u64);

impl Dice {
    /// Any seed will do.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    pub(crate) fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    pub(crate) fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    pub(crate) fn key(&mut self) -> Vec<u8> {
        match self.below(12) {
            0 => vec![0, 0xff, b'\r', b'\n', 0x80],
            1 => b"k".repeat(300),
            _ => self.pick(&["a", "b", "c", "key:1", "key:2", "k[x]", "", "\u{1}\r\n"]).into(),
        }
    }

    pub(crate) fn value(&mut self) -> Vec<u8> {
        match self.below(40) {
            0 => (0..=255).collect(),
            1 => vec![b'x'; 1 << self.below(17)],
            _ => self.pick(VALUES).into(),
        }
    }

    pub(crate) fn number(&mut self) -> Vec<u8> {
        self.pick(NUMBERS).into()
    }

    /// A time to live in seconds or milliseconds: in the far future or nonsense. Hardly any comes
    /// twice, since the two clocks differ by some milliseconds.
    pub(crate) fn ttl(&mut self) -> Vec<u8> {
        const TIMES: &[&str] = &[
            "0",
            "-1",
            "x",
            "",
            "9223372036854775807",
            "9223372036854775",
            "-9223372036854775808",
        ];
        if self.one_in(2) {
            return self.pick(TIMES).into();
        }
        (1_000_000 + self.below(100_000) * 10_000).to_string().into()
    }

    /// An end in seconds or milliseconds.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        const ENDS: &[&str] = &[
            "9999999999",
            "9999999999999",
            "99999999999999",
            "1",
            "0",
            "-5",
            "y",
            "4000000000",
            "9223372036854775807",
        ];
        self.pick(ENDS).into()
    }

    pub(crate) fn pattern(&mut self) -> Vec<u8> {
        const PATTERNS: &[&str] = &[
            "*", "key:*", "?", "[a-b]", "[^a]", "k\\[x\\]", "k[[]x]", "", "*:*", "[", "a\\",
            "[b-a]", "**", "[^", "k*\\]", "[a-", "\\*",
        ];
        self.pick(PATTERNS).into()
    }
}

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
    "1 ",
    "3.0e3",
    "0.1",
    "-1.5",
    "1e400",
    "nan",
    "-nan",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "hello world",
    "a\r\nb",
    "\u{0}",
    "1\u{0}",
    "99999999999999999999.5",
    "1.",
    ".5",
    "inf",
    "-Infinity",
    "0x10",
    "0x1p-3",
    "1e-300",
    "0.30000000000000004",
];

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
    "9223372036854775808",
    "4294967296",
    "2000000",
    "-7",
    "01",
    "+1",
];
