//! Where one request of HTTP/1.1 ends and the next begins, told of bytes as they come.
//!
//! It reads as actix-http reads (its `h1` decoder and httparse): empty lines may stand before a request,
//! a line may end in a bare LF, the framing of a body is decided by `Transfer-Encoding`,
//! `Upgrade: websocket`, `Content-Length` and `CONNECT`, in that order. Nothing is kept but what a few
//! headers say, so a head may be of any length and come in any pieces.

use memchr::memchr;

/// What may go to the server now, and what must wait.
#[derive(Debug, Default)]
pub(super) struct Gate {
    at: At,
    /// A request went in, and its answer is not out.
    owed: bool,
    /// A line of its head ended in a bare LF.
    is_loose: bool,
}

/// What the next byte belongs to.
#[derive(Debug)]
enum At {
    Head(Head),
    /// So many bytes of it are to come.
    Body(u64),
    Chunks(Chunks),
    /// To whatever the server makes of it: another protocol, or a head that it refuses.
    Through,
}

impl Gate {
    /// How many of these bytes may go in now; the others must be shown again. It is none only while
    /// the gate [is shut](Self::is_shut).
    pub(super) fn admit(&mut self, bytes: &[u8]) -> usize {
        let mut admitted = 0;
        while admitted < bytes.len() && !self.is_shut() {
            admitted += self.follow(&bytes[admitted..]);
        }
        admitted
    }

    /// The answer to the request that went in last is out.
    pub(super) fn answered(&mut self) {
        self.owed = false;
    }

    /// Whether all of a request went in, and its answer is not out.
    pub(super) fn is_shut(&self) -> bool {
        self.owed && self.is_between()
    }

    /// Whether another reader could see other lines in the head that went in last: one may end in a bare
    /// LF, but need not (RFC 9112, 2.2).
    pub(super) fn is_loose(&self) -> bool {
        self.is_loose
    }

    /// Whether the next byte begins a request.
    pub(super) fn is_between(&self) -> bool {
        matches!(&self.at, At::Head(head) if matches!(head.place, Place::Before { cr: false }))
    }

    /// Takes bytes at most to the end of a head, or of a request; answers how many.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        match &mut self.at {
            At::Through => bytes.len(),
            At::Head(head) => {
                let (taken, ended) = head.follow(bytes);
                if let Some(behind) = ended {
                    self.is_loose = head.is_loose;
                    self.at = behind;
                    self.owed = true;
                }
                taken
            }
            At::Body(left) => {
                let taken = take(left, bytes);
                if *left == 0 {
                    self.at = At::default();
                }
                taken
            }
            At::Chunks(chunks) => {
                let (taken, ended) = chunks.follow(bytes);
                if let Some(behind) = ended {
                    self.at = behind;
                }
                taken
            }
        }
    }
}

impl Default for At {
    fn default() -> Self {
        Self::Head(Head::default())
    }
}

/// Of `bytes` those that belong to the `left` ones.
fn take(left: &mut u64, bytes: &[u8]) -> usize {
    let taken = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *left -= taken as u64;
    taken
}

/// A head, as far as it is known.
#[derive(Debug, Default)]
struct Head {
    place: Place,
    is_connect: bool,
    length: Option<u64>,
    /// Whether `Transfer-Encoding` was there, and said *chunked*.
    chunked: Option<bool>,
    is_web_socket: bool,
    /// The server answers 400 to it and hangs up.
    is_broken: bool,
    /// A line ended in a bare LF.
    is_loose: bool,
    last: u8,
}

/// Where in a head.
#[derive(Debug)]
enum Place {
    /// Before the request line, where empty lines do not count; behind a CR of one.
    Before {
        cr: bool,
    },
    Method(Word),
    /// The rest of a line tells nothing.
    Rest,
    /// At the beginning of a header, or of the empty line.
    Line {
        cr: bool,
    },
    Name(Word),
    Length(Number),
    Coding(Word),
    Upgrade(Word),
}

impl Default for Place {
    fn default() -> Self {
        Self::Before { cr: false }
    }
}

impl Head {
    /// Takes bytes at most to its end; answers how many, and what comes behind the end.
    fn follow(&mut self, bytes: &[u8]) -> (usize, Option<At>) {
        let mut at = 0;
        while at < bytes.len() {
            if matches!(self.place, Place::Rest) {
                let end = memchr(b'\n', &bytes[at..]).map(|end| at + end);
                let behind = end.unwrap_or(bytes.len());
                self.last = if behind > at { bytes[behind - 1] } else { self.last };
                let Some(end) = end else { return (bytes.len(), None) };
                self.is_loose |= self.last != b'\r';
                self.last = b'\n';
                at = end + 1;
                self.place = Place::Line { cr: false };
                continue;
            }
            let byte = bytes[at];
            let before = matches!(self.place, Place::Before { .. });
            self.is_loose |= byte == b'\n' && self.last != b'\r' && !before;
            let ended = self.step(byte);
            self.last = byte;
            at += 1;
            if ended || self.is_broken {
                return (at, Some(self.behind()));
            }
        }
        (at, None)
    }

    /// Takes a byte; answers whether it was the last one.
    fn step(&mut self, byte: u8) -> bool {
        match (&mut self.place, byte) {
            (Place::Before { .. }, b'\n') => self.place = Place::default(),
            (Place::Line { .. }, b'\n') => return true,
            (Place::Before { cr } | Place::Line { cr }, b'\r') if !*cr => *cr = true,
            (Place::Before { cr: true } | Place::Line { cr: true }, _) => self.is_broken = true,
            (Place::Before { .. }, _) => self.place = Place::Method(Word::of(byte)),
            // As the names begin that matter.
            (Place::Line { .. }, b'C' | b'c' | b'T' | b't' | b'U' | b'u') => {
                self.place = Place::Name(Word::of(byte));
            }
            (Place::Line { .. }, _) => self.place = Place::Rest,
            (Place::Method(_) | Place::Name(_), b'\n') => self.is_broken = true,
            (Place::Method(method), b' ') => {
                self.is_connect = method.bytes() == b"CONNECT";
                self.place = Place::Rest;
            }
            (Place::Name(name), b':') => self.place = self::value(name),
            (Place::Method(word) | Place::Name(word), _) => word.push(byte),
            (_, b'\n') => self.said(),
            (Place::Length(number), _) => number.push(byte),
            (Place::Coding(word) | Place::Upgrade(word), _) => word.push_trimmed(byte),
            (Place::Rest, _) => {}
        }
        false
    }

    /// A header ended.
    fn said(&mut self) {
        match std::mem::replace(&mut self.place, Place::Line { cr: false }) {
            Place::Length(number) => {
                // Two of them contradict each other, even if they are the same.
                self.is_broken |= self.length.is_some();
                match number.value() {
                    Some(length) => self.length = Some(length),
                    None => self.is_broken = true,
                }
            }
            Place::Coding(coding) => {
                self.is_broken |= self.chunked.is_some();
                self.chunked = Some(coding.bytes().eq_ignore_ascii_case(b"chunked"));
            }
            Place::Upgrade(to) => {
                self.is_web_socket |= to.bytes().eq_ignore_ascii_case(b"websocket");
            }
            Place::Before { .. }
            | Place::Method(_)
            | Place::Rest
            | Place::Line { .. }
            | Place::Name(_) => {}
        }
    }

    /// What comes behind it.
    fn behind(&self) -> At {
        match (self.chunked, self.length) {
            _ if self.is_broken => At::Through,
            (Some(true), None) => At::Chunks(Chunks::default()),
            // Another coding, or two framings.
            (Some(_), _) => At::Through,
            _ if self.is_web_socket => At::Through,
            (None, Some(length)) if length > 0 => At::Body(length),
            _ if self.is_connect => At::Through,
            _ => At::default(),
        }
    }
}

/// Where the value of a header of this name is.
fn value(name: &Word) -> Place {
    let names = |wanted: &str| name.bytes().eq_ignore_ascii_case(wanted.as_bytes());
    match () {
        () if names("content-length") => Place::Length(Number::default()),
        () if names("transfer-encoding") => Place::Coding(Word::default()),
        () if names("upgrade") => Place::Upgrade(Word::default()),
        () => Place::Rest,
    }
}

/// The first bytes of something that matters only when it is short.
#[derive(Debug, Default)]
struct Word {
    bytes: [u8; WORD_BYTES_MAX],
    len: usize,
    /// A space came behind it.
    is_over: bool,
}

/// One more than the longest name that is looked for has: a word so long is none of them.
const WORD_BYTES_MAX: usize = "transfer-encoding".len() + 1;

impl Word {
    fn of(byte: u8) -> Self {
        let mut word = Self::default();
        word.push(byte);
        word
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    /// As a header's value, around which spaces do not count.
    fn push_trimmed(&mut self, byte: u8) {
        match byte {
            b' ' | b'\t' | b'\r' => self.is_over |= self.len > 0,
            // Two words are not the one.
            _ if self.is_over => self.len = WORD_BYTES_MAX,
            _ => self.push(byte),
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What `Content-Length` says.
#[derive(Debug, Default)]
struct Number {
    value: Option<u64>,
    is_over: bool,
    is_none: bool,
}

impl Number {
    fn push(&mut self, byte: u8) {
        match byte {
            b' ' | b'\t' | b'\r' => self.is_over |= self.value.is_some(),
            b'0'..=b'9' if !self.is_over => {
                let digit = u64::from(byte - b'0');
                let tens = self.value.unwrap_or(0).checked_mul(10);
                self.value = tens.and_then(|tens| tens.checked_add(digit));
                self.is_none |= self.value.is_none();
            }
            _ => self.is_none = true,
        }
    }

    fn value(&self) -> Option<u64> {
        self.value.filter(|_| !self.is_none)
    }
}

/// A body in chunks.
#[derive(Debug, Default)]
struct Chunks {
    place: Chunk,
    /// Of the chunk; in its data: what is to come.
    size: u64,
}

/// Where in such a body.
#[derive(Debug, Clone, Copy, Default)]
enum Chunk {
    /// Before the first digit of a size.
    #[default]
    Size,
    Digits,
    /// Spaces behind a size.
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the beginning of a trailer, or of the last, empty line.
    Last,
    Trailer,
    TrailerLf,
    LastLf,
}

impl Chunks {
    /// Takes bytes at most to the end of the body; answers how many, and what comes behind the end.
    fn follow(&mut self, bytes: &[u8]) -> (usize, Option<At>) {
        let mut at = 0;
        while at < bytes.len() {
            if matches!(self.place, Chunk::Data) {
                at += take(&mut self.size, &bytes[at..]);
                if self.size == 0 {
                    self.place = Chunk::DataCr;
                }
                continue;
            }
            let last = matches!(self.place, Chunk::LastLf);
            let next = self.step(bytes[at]);
            at += 1;
            match next {
                // The server hangs up.
                None => return (at, Some(At::Through)),
                Some(_) if last => return (at, Some(At::default())),
                Some(next) => self.place = next,
            }
        }
        (at, None)
    }

    /// What the byte leads to; nothing: it may not stand there.
    fn step(&mut self, byte: u8) -> Option<Chunk> {
        Some(match (self.place, byte) {
            (Chunk::Size | Chunk::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = u64::from(char::from(byte).to_digit(16)?);
                let so_far = if matches!(self.place, Chunk::Size) { 0 } else { self.size };
                self.size = so_far.checked_mul(16)? + digit;
                Chunk::Digits
            }
            (Chunk::Digits | Chunk::Space, b' ' | b'\t') => Chunk::Space,
            (Chunk::Digits | Chunk::Space, b';') => Chunk::Extension,
            (Chunk::Digits | Chunk::Space | Chunk::Extension, b'\r') => Chunk::SizeLf,
            (Chunk::Extension, 0x00..=0x08 | 0x0a..=0x1f | 0x7f) => return None,
            (Chunk::Extension, _) => Chunk::Extension,
            (Chunk::SizeLf, b'\n') if self.size > 0 => Chunk::Data,
            (Chunk::SizeLf | Chunk::TrailerLf, b'\n') => Chunk::Last,
            (Chunk::DataCr, b'\r') => Chunk::DataLf,
            (Chunk::DataLf, b'\n') => Chunk::Size,
            (Chunk::Last, b'\r') => Chunk::LastLf,
            (Chunk::Trailer, b'\r') => Chunk::TrailerLf,
            (Chunk::Last | Chunk::Trailer, _) => Chunk::Trailer,
            (Chunk::LastLf, b'\n') => Chunk::LastLf,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
