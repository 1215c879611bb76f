//! Texts to numbers of tokens, by a `tokenizer.json` or by WordPiece with a `vocab.txt`.

use std::path::Path;

use edgesmith_formats::Spans;
use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Result};
use serde_json::{Map, Value, json};
use tokenizers::{
    EncodeInput, PaddingParams, PaddingStrategy, Tokenizer as Inner, TruncationParams,
};

/// Bytes of a file at the most, and tokens of a text.
const MOST_BYTES: u64 = 256 << 20;
const MOST_TOKENS: usize = 1 << 20;

/// Makes texts to so many tokens.
pub struct Tokenizer {
    inner: Inner,
    length: usize,
}

/// A text, or two, as models take it: each of the length of the tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The numbers of tokens; behind the text those of padding.
    pub ids: Vec<i64>,
    /// 1 where there is text.
    pub mask: Vec<i64>,
    /// 1 where the second text is.
    pub types: Vec<i64>,
}

impl Tokenizer {
    /// How many tokens there are.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Reads a `tokenizer.json`, or a file with a token in each line (BERT's WordPiece: texts are in
    /// small letters unless a token would change by that).
    ///
    /// # Errors
    /// When the file cannot be read or is no such file.
    pub fn open(path: &Path, length: usize) -> Result<Self> {
        let place = || path.display().to_string();
        if length == 0 || length > MOST_TOKENS {
            return Err(Error::usage(format!(
                "texts of {length} tokens are not made"
            )));
        }
        let spans = Spans::open(path)?;
        if spans.length() > MOST_BYTES {
            return Err(
                Error::unsupported(format!("it has more than {MOST_BYTES} bytes")).at(place()),
            );
        }
        let bytes = spans.read(0, spans.length() as usize).at(place)?;
        let is_json = path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("json"));
        let bytes = if is_json {
            bytes
        } else {
            word_piece(&bytes).at(place)?
        };
        let fault =
            |e: tokenizers::Error| Error::invalid(format!("it is no tokenizer: {e}")).at(place());
        let mut inner = Inner::from_bytes(bytes).map_err(fault)?;
        let padding = padding(&inner, length);
        inner.with_padding(Some(padding));
        let truncation = TruncationParams {
            max_length: length,
            ..TruncationParams::default()
        };
        inner.with_truncation(Some(truncation)).map_err(fault)?;
        Ok(Self { inner, length })
    }

    /// The tokens of a text, or of two.
    ///
    /// # Errors
    /// When a word has no token, and the vocabulary none for unknown ones.
    pub fn encode(&self, text: &str, second: Option<&str>) -> Result<Tokens> {
        let input = match second {
            Some(second) => EncodeInput::from((text, second)),
            None => EncodeInput::from(text),
        };
        let made = self.inner.encode(input, true);
        let made = made.map_err(|e| Error::invalid(format!("the text has no tokens: {e}")))?;
        let wide = |numbers: &[u32]| -> Vec<i64> {
            let all = numbers.iter().map(|&n| i64::from(n));
            all.take(self.length).collect()
        };
        Ok(Tokens {
            ids: wide(made.get_ids()),
            mask: wide(made.get_attention_mask()),
            types: wide(made.get_type_ids()),
        })
    }

    /// Tokens of a text.
    pub fn length(&self) -> usize {
        self.length
    }
}

/// Padding to a length, by the token that the tokenizer has for it.
fn padding(inner: &Inner, length: usize) -> PaddingParams {
    let mut padding = inner.get_padding().cloned().unwrap_or_else(|| {
        let known = ["[PAD]", "<pad>", "<|endoftext|>"];
        let mut known = known
            .iter()
            .filter_map(|t| Some((*t, inner.token_to_id(t)?)));
        let (token, id) = known.next().unwrap_or(("[PAD]", 0));
        PaddingParams {
            pad_id: id,
            pad_token: token.to_owned(),
            ..PaddingParams::default()
        }
    });
    padding.strategy = PaddingStrategy::Fixed(length);
    padding
}

/// A `tokenizer.json` of BERT's WordPiece with the tokens of a `vocab.txt`.
fn word_piece(bytes: &[u8]) -> Result<Vec<u8>> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::invalid("it is no text of UTF-8"))?;
    let mut vocabulary = Map::new();
    for (number, token) in text.lines().enumerate() {
        vocabulary.insert(token.trim_end().to_owned(), Value::from(number));
    }
    let number = |token: &str| {
        let missing = || {
            Error::invalid(format!("it has no token {token}")).hint(
                "a vocab.txt of WordPiece has a token in each line, [UNK], [CLS] and [SEP] too",
            )
        };
        vocabulary.get(token).cloned().ok_or_else(missing)
    };
    number("[UNK]")?;
    let (begin, end) = (number("[CLS]")?, number("[SEP]")?);
    let is_cased = |t: &&String| !t.starts_with('[') && t.to_lowercase() != **t;
    let lowercase = !vocabulary.keys().any(|t| is_cased(&t));
    let special = |token: &str| {
        let id = vocabulary.get(token)?;
        Some(
            json!({"id": id, "content": token, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}),
        )
    };
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let added: Vec<Value> = specials.iter().filter_map(|t| special(t)).collect();
    let made = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": lowercase},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", end], "cls": ["[CLS]", begin]},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary},
    });
    Ok(made.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nplay\n##ing\nthe\n,\ncafe\n";

    fn with<R>(test: &str, name: &str, text: &str, check: impl FnOnce(&Path) -> R) -> R {
        let folder = crate::source::testing::Folder::new(test);
        check(&folder.write(name, text.as_bytes()))
    }

    #[test]
    fn words_are_cut_into_pieces_and_filled_up() {
        with("pieces", "vocab.txt", VOCABULARY, |path| {
            let t = Tokenizer::open(path, 8).unwrap();
            let made = t.encode("The playing,", None).unwrap();
            assert_eq!(made.ids, [2, 6, 4, 5, 7, 3, 0, 0]);
            assert_eq!(made.mask, [1, 1, 1, 1, 1, 1, 0, 0]);
            assert_eq!(t.encode("CAFÉ dog", None).unwrap().ids[..4], [2, 8, 1, 3]);
            assert_eq!(t.encode("", None).unwrap().ids[..3], [2, 3, 0]);
        });
    }

    #[test]
    fn two_texts_are_told_apart_and_cut_to_the_length() {
        with("pairs", "vocab.txt", VOCABULARY, |path| {
            let t = Tokenizer::open(path, 7).unwrap();
            let made = t.encode("the", Some("playing")).unwrap();
            assert_eq!(made.ids, [2, 6, 3, 4, 5, 3, 0]);
            assert_eq!(made.types, [0, 0, 0, 1, 1, 1, 0]);
            let made = t
                .encode("the the the the", Some("the the the the"))
                .unwrap();
            assert_eq!(made.ids, [2, 6, 6, 3, 6, 6, 3]);
        });
    }

    #[test]
    fn a_tokenizer_json_is_read_as_it_is() {
        let text = String::from_utf8(word_piece(VOCABULARY.as_bytes()).unwrap()).unwrap();
        with("json", "tokenizer.json", &text, |path| {
            let made = Tokenizer::open(path, 4)
                .unwrap()
                .encode("the", None)
                .unwrap();
            assert_eq!(made.ids, [2, 6, 3, 0]);
        });
    }

    #[test]
    fn a_vocabulary_with_large_letters_keeps_them() {
        with(
            "cased",
            "vocab.txt",
            &format!("{VOCABULARY}The\n"),
            |path| {
                let made = Tokenizer::open(path, 4)
                    .unwrap()
                    .encode("The the", None)
                    .unwrap();
                assert_eq!(made.ids, [2, 9, 6, 3]);
            },
        );
    }

    #[test]
    fn a_letter_without_a_small_form_makes_no_vocabulary_one_of_large_letters() {
        with(
            "forms",
            "vocab.txt",
            &format!("{VOCABULARY}\u{211d}\n"),
            |path| {
                let made = Tokenizer::open(path, 4).unwrap().encode("The", None);
                assert_eq!(made.unwrap().ids, [2, 6, 3, 0]);
            },
        );
    }

    #[test]
    fn what_is_no_tokenizer_is_refused() {
        for (name, text, what) in [
            ("tokenizer.json", "{", "it is no tokenizer"),
            (
                "tokenizer.json",
                "{\"model\": {\"type\": \"WordPiece\"}}",
                "it is no tokenizer",
            ),
            ("vocab.txt", "a\nb\n", "it has no token [UNK]"),
        ] {
            let e = with("refused", name, text, |path| {
                Tokenizer::open(path, 4).err().unwrap()
            });
            assert!(e.to_string().contains(what), "{e}");
        }
    }
}
