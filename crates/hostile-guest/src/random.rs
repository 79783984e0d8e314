//! Numbers that depend on a seed alone, so that an attack can be repeated (SplitMix64).

/// A generator.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The generator of one round of an attack: that round can be repeated without those before it.
    pub(crate) fn of_round(seed: u64, round: u64) -> Self {
        let mut of_seed = Self(seed);
        Self(of_seed.word() ^ round.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// Any word.
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// The low bits of any word.
    #[expect(clippy::cast_possible_truncation, reason = "that many bits are wanted")]
    pub(crate) fn word32(&mut self) -> u32 {
        self.word() as u32
    }

    /// The low bits of any word.
    #[expect(clippy::cast_possible_truncation, reason = "that many bits are wanted")]
    pub(crate) fn word16(&mut self) -> u16 {
        self.word() as u16
    }

    /// The low bits of any word.
    #[expect(clippy::cast_possible_truncation, reason = "that many bits are wanted")]
    pub(crate) fn word8(&mut self) -> u8 {
        self.word() as u8
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.word() % end
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let index = usize::try_from(self.below(choices.len() as u64)).unwrap_or(0);
        choices[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_the_same_each_time_and_unlike_the_others() {
        let numbers = |seed, round| {
            let mut random = Random::of_round(seed, round);
            [random.word(), random.word()]
        };
        assert_eq!(numbers(1, 7), numbers(1, 7));
        assert_ne!(numbers(1, 7), numbers(1, 8));
        assert_ne!(numbers(1, 7), numbers(2, 7));
    }
}
