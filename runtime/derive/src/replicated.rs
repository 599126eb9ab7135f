//! `#[derive(Replicated)]`: writes the table of an actor's commands and queries.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{
    Attribute, DeriveInput, Error, LitStr, Path, Result, Token, meta::ParseNestedMeta,
    parenthesized, punctuated::Punctuated, spanned::Spanned,
};

/// The whole impl for `input`, or an error at the place at fault.
pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let options = Options::parse(input)?;
    let (actor, name) = (&input.ident, &options.name);
    // Spanned at the message, so that "Handler<M> is not implemented" points at its name.
    let commands = options.commands.iter().map(|message| {
        quote_spanned!(message.span()=> ::synod::replicated::Entry::command::<#message>())
    });
    let queries = options.queries.iter().map(
        |message| quote_spanned!(message.span()=> ::synod::replicated::Entry::query::<#message>()),
    );
    Ok(quote! {
        impl ::synod::replicated::Replicated for #actor {
            const NAME: &'static str = #name;
            const ENTRIES: &'static [::synod::replicated::Entry<Self>] =
                &::synod::replicated::Entry::distinct([#(#commands,)* #(#queries,)*]);
        }
    })
}

struct Options {
    name: LitStr,
    commands: Vec<Path>,
    queries: Vec<Path>,
}

impl Options {
    fn parse(input: &DeriveInput) -> Result<Self> {
        if !input.generics.params.is_empty() {
            let text = "a replicated actor has a wire name, so it cannot be generic";
            return Err(Error::new_spanned(&input.generics, text));
        }
        let (mut name, mut commands, mut queries) = (None, Vec::new(), Vec::new());
        let ours = |attribute: &&Attribute| attribute.path().is_ident("replicated");
        for attribute in input.attrs.iter().filter(ours) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("name") {
                    name = Some(wire_name(&meta)?);
                } else if meta.path.is_ident("commands") {
                    commands.extend(messages(&meta)?);
                } else if meta.path.is_ident("queries") {
                    queries.extend(messages(&meta)?);
                } else {
                    return Err(meta.error("expected `name`, `commands` or `queries`"));
                }
                Ok(())
            })?;
        }
        let example = "expected #[replicated(name = \"…\", commands(…), queries(…))]";
        let name = name.ok_or_else(|| Error::new(input.ident.span(), example))?;
        Ok(Self { name, commands, queries })
    }
}

fn wire_name(meta: &ParseNestedMeta<'_>) -> Result<LitStr> {
    let name: LitStr = meta.value()?.parse()?;
    if name.value().is_empty() {
        return Err(Error::new(name.span(), "a wire name has at least one character"));
    }
    Ok(name)
}

fn messages(meta: &ParseNestedMeta<'_>) -> Result<Punctuated<Path, Token![,]>> {
    let list;
    parenthesized!(list in meta.input);
    Punctuated::parse_terminated(&list)
}
