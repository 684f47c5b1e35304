//! Warnings: what a person should know about a completed operation.

/// The most warnings of one operation.
const MAX_WARNINGS: usize = 20;

/// The longest warning, in characters. It may quote a name from a file.
const MAX_CHARS: usize = 500;

/// The warnings of one operation, in order. They are a part of its result.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Vec<String>);

impl Warnings {
    /// Adds a sentence. Those beyond the limit are left out.
    pub(crate) fn add(&mut self, sentence: impl Into<String>) {
        if self.0.len() < MAX_WARNINGS {
            let mut sentence = sentence.into();
            if let Some((cut, _)) = sentence.char_indices().nth(MAX_CHARS) {
                sentence.truncate(cut);
                sentence.push('…');
            }
            self.0.push(sentence);
        }
    }

    /// All sentences.
    pub(crate) fn into_sentences(self) -> Vec<String> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_bounded() {
        let mut warnings = Warnings::default();
        (0..100).for_each(|_| warnings.add("ü".repeat(1000)));

        let sentences = warnings.into_sentences();

        assert_eq!(sentences.len(), MAX_WARNINGS);
        assert_eq!(sentences[0].chars().count(), MAX_CHARS + 1);
    }
}
