//! `#[remote(...)]`, read once for both derives.

use syn::{
    Attribute, DeriveInput, Error, LitInt, LitStr, Path, Token, Type, meta::ParseNestedMeta,
    parenthesized, punctuated::Punctuated,
};

/// What stands in `#[remote(...)]`.
pub(crate) struct Remote {
    pub(crate) name: LitStr,
    /// Where `message` is found.
    pub(crate) krate: Path,
    /// `None` when nothing was said about it.
    pub(crate) handles: Option<Vec<Type>>,
    /// Raised by hand when a type inside the message changed.
    pub(crate) revision: Option<u32>,
}

impl Remote {
    pub(crate) fn of(input: &DeriveInput) -> syn::Result<Self> {
        let (mut name, mut krate, mut handles, mut revision) = (None, None, None, None);
        for attribute in input.attrs.iter().filter(is_remote) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("name") {
                    once(&mut name, wire_name(&meta)?, &meta)
                } else if meta.path.is_ident("crate") {
                    once(&mut krate, meta.value()?.parse::<LitStr>()?.parse()?, &meta)
                } else if meta.path.is_ident("handles") {
                    once(&mut handles, types(&meta)?, &meta)
                } else if meta.path.is_ident("revision") {
                    once(&mut revision, meta.value()?.parse::<LitInt>()?.base10_parse()?, &meta)
                } else {
                    Err(meta.error("expected `name`, `handles`, `revision` or `crate`"))
                }
            })?;
        }
        let Some(name) = name else {
            let text = "a remote type needs a name of its own on the wire: \
                        #[remote(name = \"...\")]";
            return Err(Error::new_spanned(&input.ident, text));
        };
        let krate = krate.unwrap_or_else(|| syn::parse_quote!(::synod));
        Ok(Self { name, krate, handles, revision })
    }
}

fn is_remote(attribute: &&Attribute) -> bool {
    attribute.path().is_ident("remote")
}

pub(crate) fn wire_name(meta: &ParseNestedMeta<'_>) -> syn::Result<LitStr> {
    let name: LitStr = meta.value()?.parse()?;
    if name.value().is_empty() || name.value().contains(char::is_whitespace) {
        return Err(Error::new(name.span(), "a name on the wire has no spaces and is not empty"));
    }
    Ok(name)
}

pub(crate) fn types(meta: &ParseNestedMeta<'_>) -> syn::Result<Vec<Type>> {
    let content;
    parenthesized!(content in meta.input);
    let types = Punctuated::<Type, Token![,]>::parse_terminated(&content)?;
    Ok(types.into_iter().collect())
}

/// A number, then types: `(2, Close, Merge)`.
pub(crate) fn versioned_types(meta: &ParseNestedMeta<'_>) -> syn::Result<(LitInt, Vec<Type>)> {
    let content;
    parenthesized!(content in meta.input);
    let version: LitInt = content.parse()?;
    version.base10_parse::<u32>()?;
    content.parse::<Token![,]>()?;
    let types = Punctuated::<Type, Token![,]>::parse_terminated(&content)?;
    Ok((version, types.into_iter().collect()))
}

pub(crate) fn once<T>(
    slot: &mut Option<T>,
    value: T,
    meta: &ParseNestedMeta<'_>,
) -> syn::Result<()> {
    if slot.replace(value).is_some() {
        return Err(meta.error("said twice"));
    }
    Ok(())
}
