//! What `derive(RemoteMessage)` writes down of a message's form, so that two builds can compare
//! theirs before anything is sent.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{
    Attribute, Data, DeriveInput, Expr, ExprLit, Field, Fields, Lit, Meta, Path, Token, Type,
    Variant, parse::Parser as _, punctuated::Punctuated,
};

/// The text of a `Schema` for the message `input`; `krate` has `message`.
pub(crate) fn of(input: &DeriveInput, krate: &Path, revision: u32) -> TokenStream {
    let serde = Serde::of(&input.attrs);
    let (shape, members) = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => {
                let all_defaulted = serde.defaulted;
                let members = fields.named.iter().filter_map(|field| member(field, all_defaulted));
                ("map".to_owned(), members.collect())
            }
            fields @ (Fields::Unnamed(_) | Fields::Unit) => (contents(fields), Vec::new()),
        },
        Data::Enum(data) => ("enum".to_owned(), data.variants.iter().map(variant).collect()),
        Data::Union(_) => ("union".to_owned(), Vec::new()),
    };
    let shape = serde.form.iter().fold(shape, |shape, form| format!("{shape} {form}"));
    let members = members.iter().map(|Member { name, kind, needed }| {
        quote! { #krate::message::Member { name: #name, kind: #kind, needed: #needed } }
    });
    let (reply, strict) = (reply(&input.attrs), serde.strict);
    quote! {
        #krate::message::Schema {
            shape: #shape,
            revision: #revision,
            members: &[#(#members),*],
            strict: #strict,
            reply: #reply,
        }
    }
}

struct Member {
    name: String,
    kind: String,
    needed: bool,
}

/// A named field, unless it does not travel.
fn member(field: &Field, all_defaulted: bool) -> Option<Member> {
    let serde = Serde::of(&field.attrs);
    if serde.skipped {
        return None;
    }
    let own = field.ident.as_ref().map(|ident| plain(&ident.to_string()).to_owned());
    let name = serde.renamed.clone().or(own)?;
    // serde takes a missing `Option` for `None`, unless a function of the user's reads it.
    let optional = serde.form.is_empty() && is_option(&field.ty);
    let kind = serde.form.iter().fold(normal(field.ty.to_token_stream()), |kind, form| {
        format!("{kind} {form}") // how it is written is part of what it is
    });
    Some(Member { name, kind, needed: !(all_defaulted || serde.defaulted || optional) })
}

/// A variant: not needed by anybody, since only a value of it has it.
fn variant(variant: &Variant) -> Member {
    let serde = Serde::of(&variant.attrs);
    let name = serde.renamed.unwrap_or_else(|| plain(&variant.ident.to_string()).to_owned());
    let kind = serde.form.iter().fold(contents(&variant.fields), |kind, form| {
        format!("{kind} {form}") // such as `untagged`
    });
    Member { name, kind, needed: false }
}

/// Fields where nothing may be added: as one text.
fn contents(fields: &Fields) -> String {
    let field = |field: &Field| {
        let serde = Serde::of(&field.attrs);
        let name = field.ident.as_ref().map(|ident| format!("{}:", plain(&ident.to_string())));
        let kind = normal(field.ty.to_token_stream());
        let form = serde.form.concat() + &serde.renamed.unwrap_or_default();
        format!("{}{kind}{form}", name.unwrap_or_default())
    };
    let all = fields.iter().map(field).collect::<Vec<_>>().join(",");
    match fields {
        Fields::Named(_) => format!("{{{all}}}"),
        Fields::Unnamed(_) => format!("({all})"),
        Fields::Unit => "unit".to_owned(),
    }
}

/// What serde's attributes say about the form on the wire.
#[derive(Default)]
struct Serde {
    renamed: Option<String>,
    defaulted: bool,
    skipped: bool,
    strict: bool,
    /// Everything else that changes the form, sorted.
    form: Vec<String>,
}

impl Serde {
    /// Never fails: what cannot be read here, serde's own derive refuses with a better text.
    fn of(attributes: &[Attribute]) -> Self {
        let mut serde = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
            let Meta::List(list) = &attribute.meta else { continue };
            let all = Punctuated::<Meta, Token![,]>::parse_terminated.parse2(list.tokens.clone());
            for meta in all.into_iter().flatten() {
                serde.take(&meta);
            }
        }
        serde.form.sort();
        serde
    }

    fn take(&mut self, meta: &Meta) {
        let word = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
        match word.as_str() {
            "rename" => match text_of(meta) {
                Some(text) => self.renamed = Some(text),
                None => self.form.push(normal(meta.to_token_stream())),
            },
            "default" => self.defaulted = true,
            "skip" | "skip_serializing" | "skip_deserializing" => self.skipped = true,
            "deny_unknown_fields" => self.strict = true,
            // Say nothing about the form.
            "alias"
            | "bound"
            | "borrow"
            | "crate"
            | "expecting"
            | "getter"
            | "other"
            | "skip_serializing_if" => {}
            _ => self.form.push(normal(meta.to_token_stream())),
        }
    }
}

fn text_of(meta: &Meta) -> Option<String> {
    let Meta::NameValue(pair) = meta else { return None };
    match &pair.value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

/// The result that `#[rtype(...)]` names; empty when the message was made one by hand.
fn reply(attributes: &[Attribute]) -> String {
    let Some(attribute) = attributes.iter().find(|attribute| attribute.path().is_ident("rtype"))
    else {
        return String::new();
    };
    let Meta::List(list) = &attribute.meta else { return String::new() };
    let named = syn::parse2::<Meta>(list.tokens.clone()).ok().and_then(|meta| text_of(&meta));
    match named.map(|text| text.parse::<TokenStream>()) {
        Some(Ok(tokens)) => normal(tokens),
        Some(Err(_)) => String::new(),
        None => normal(list.tokens.clone()),
    }
}

fn is_option(kind: &Type) -> bool {
    let Type::Path(path) = kind else { return false };
    path.path.segments.last().is_some_and(|last| last.ident == "Option")
}

/// A raw identifier without its mark, as serde writes it.
fn plain(ident: &str) -> &str {
    ident.trim_start_matches("r#")
}

/// The text of a type by its last names, without spaces: `std::vec::Vec < u8 >` is `Vec<u8>`, so
/// that moving a type to another module changes nothing.
fn normal(tokens: TokenStream) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut colon = false;
    for token in tokens {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ':' && colon => {
                colon = false;
                parts.pop();
                if parts.last().is_some_and(|last| is_word(last)) {
                    parts.pop();
                }
            }
            TokenTree::Punct(punct) => {
                colon = punct.as_char() == ':' && punct.spacing() == Spacing::Joint;
                parts.push(punct.as_char().to_string());
            }
            TokenTree::Group(group) => {
                colon = false;
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                parts.push(format!("{open}{}{close}", normal(group.stream())));
            }
            word @ (TokenTree::Ident(_) | TokenTree::Literal(_)) => {
                colon = false;
                parts.push(word.to_string());
            }
        }
    }
    let mut text = String::new();
    for part in parts {
        // `dyn Any` must not read as `dynAny`.
        if is_word(&part) && text.chars().last().is_some_and(is_word_char) {
            text.push(' ');
        }
        text += &part;
    }
    text
}

fn is_word(part: &str) -> bool {
    part.chars().next().is_some_and(is_word_char)
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '"'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal_text(text: &str) -> String {
        normal(text.parse().expect("the test writes tokens"))
    }

    #[test]
    fn a_type_is_known_by_its_last_names() {
        assert_eq!(normal_text("::std::vec::Vec < my::Item >"), "Vec<Item>");
        assert_eq!(normal_text("Result<u64, crate::ledger::Refused>"), "Result<u64,Refused>");
        assert_eq!(normal_text("[a::B; 4]"), "[B;4]");
        assert_eq!(normal_text("Box<dyn std::any::Any>"), "Box<dyn Any>");
        assert_eq!(normal_text("(u8, &'static str)"), "(u8,&'static str)");
    }

    #[test]
    fn what_serde_is_told_is_part_of_the_form() {
        let input: DeriveInput = syn::parse_quote! {
            #[rtype(result = "Result<u64, my::Refused>")]
            #[serde(deny_unknown_fields, rename_all = "camelCase")]
            struct Append {
                amount: i64,
                #[serde(default)]
                fee: i64,
                note: Option<String>,
                #[serde(rename = "by", with = "my::hex")]
                author: Option<u64>,
                #[serde(skip)]
                seen: bool,
            }
        };
        let members: Vec<_> = match &input.data {
            Data::Struct(data) => data.fields.iter().filter_map(|f| member(f, false)).collect(),
            Data::Enum(_) | Data::Union(_) => Vec::new(),
        };
        let told: Vec<_> =
            members.iter().map(|m| (m.name.as_str(), m.kind.as_str(), m.needed)).collect();
        let wanted = [
            ("amount", "i64", true),
            ("fee", "i64", false),
            ("note", "Option<String>", false),
            ("by", "Option<u64> with=\"my::hex\"", true),
        ];
        assert_eq!(told, wanted);
        assert_eq!(reply(&input.attrs), "Result<u64,Refused>");
        let text = of(&input, &syn::parse_quote!(krate), 0).to_string();
        assert!(text.contains("camelCase") && text.contains("strict : true"), "{text}");
    }
}
