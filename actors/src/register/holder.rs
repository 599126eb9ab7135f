//! Keeps registers (G1).

use std::collections::BTreeMap;

use super::message::{Answer, Ask, Block, NAME_BYTES_MAX, REGISTERS_MAX, Refusal, VALUE_BYTES_MAX};

/// All registers of one holder.
#[derive(Debug, Clone, Default)]
pub struct Holder {
    registers: BTreeMap<String, Block>,
}

impl Holder {
    /// With what is durable.
    pub const fn recovered(registers: BTreeMap<String, Block>) -> Self {
        Self { registers }
    }

    /// One request. Where there is a block beside the answer, that must be durable before the answer
    /// is given; and so must be all blocks of this register that came before, in any case.
    pub fn ask(&mut self, register: &str, ask: Ask) -> (Answer, Option<Block>) {
        if register.is_empty() || register.len() > NAME_BYTES_MAX {
            return (Answer::Refused(Refusal::BadName), None);
        }
        let known = self.registers.get(register);
        let is_new = known.is_none();
        let mut block = known.cloned().unwrap_or_default();
        let highest = block.ordered.max(block.written);
        let answer = match ask {
            Ask::Read => return (Answer::Held(block), None),
            // The call of that stamp is over.
            Ask::Order { stamp, .. } if stamp == block.written => Answer::Late(highest),
            Ask::Order { stamp, .. } if stamp < highest && !off!(OrdersRise) => {
                Answer::Late(highest)
            }
            Ask::Order { stamp, fetch } => {
                block.ordered = stamp;
                let value = if fetch { block.value.clone() } else { Vec::new() };
                Answer::Held(Block { value, ..block })
            }
            Ask::Write { value, .. } if value.len() > VALUE_BYTES_MAX => {
                Answer::Refused(Refusal::TooLarge(value.len()))
            }
            Ask::Write { stamp, .. } if stamp < highest && !off!(OldWritesRefused) => {
                Answer::Late(highest)
            }
            Ask::Write { stamp, value } => {
                block = Block { ordered: highest.max(stamp), written: stamp, value };
                Answer::Written
            }
        };
        match answer {
            Answer::Late(_) | Answer::Refused(_) => (answer, None),
            Answer::Held(_) | Answer::Written
                if is_new && self.registers.len() >= REGISTERS_MAX =>
            {
                (Answer::Refused(Refusal::Full), None)
            }
            Answer::Held(_) | Answer::Written => {
                self.registers.insert(register.to_owned(), block.clone());
                (answer, Some(block))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::Timestamp;

    const fn at(time: u64) -> Timestamp {
        Timestamp { time, author: 7 }
    }

    fn write(time: u64, value: &[u8]) -> Ask {
        Ask::Write { stamp: at(time), value: value.to_vec() }
    }

    #[test]
    fn nothing_is_taken_below_what_was_ordered() {
        let mut holder = Holder::default();
        let order = |time| Ask::Order { stamp: at(time), fetch: true };
        assert_eq!(holder.ask("r", order(5)).1.unwrap().ordered, at(5));
        assert_eq!(holder.ask("r", write(4, b"x")), (Answer::Late(at(5)), None));
        assert_eq!(holder.ask("r", order(4)), (Answer::Late(at(5)), None));
        // The same once more, since messages come twice.
        assert!(matches!(holder.ask("r", order(5)).0, Answer::Held(_)));
        for _ in 0..2 {
            let (said, kept) = holder.ask("r", write(5, b"five"));
            assert_eq!((said, kept.unwrap().value), (Answer::Written, b"five".to_vec()));
        }
        assert_eq!(holder.ask("r", order(5)).0, Answer::Late(at(5)), "that call is over");
        let (Answer::Held(block), None) = holder.ask("r", Ask::Read) else { panic!("it is read") };
        assert_eq!((block.written, block.value), (at(5), b"five".to_vec()));
        assert_eq!(holder.ask("other", Ask::Read).0, Answer::Held(Block::default()));
    }

    #[test]
    fn names_values_and_registers_are_bounded() {
        let mut holder = Holder::default();
        assert_eq!(holder.ask("", Ask::Read).0, Answer::Refused(Refusal::BadName));
        let large = vec![0; VALUE_BYTES_MAX + 1];
        let refused = Answer::Refused(Refusal::TooLarge(large.len()));
        assert_eq!(holder.ask("r", write(1, &large)), (refused, None));
        for number in 0..REGISTERS_MAX {
            assert_eq!(holder.ask(&number.to_string(), write(1, b"")).0, Answer::Written);
        }
        assert_eq!(holder.ask("r", write(1, b"")), (Answer::Refused(Refusal::Full), None));
        assert_eq!(holder.ask("0", write(2, b"")).0, Answer::Written);
    }
}
