//! `#[async_handlers]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{
    Error, FnArg, Ident, ImplItem, ImplItemFn, ItemImpl, LitStr, Path, ReturnType, Type,
    meta::ParseNestedMeta, parse::Parser as _, spanned::Spanned as _,
};

use crate::attributes::{once, wire_name};

pub(crate) fn expand(attribute: TokenStream, block: &ItemImpl) -> syn::Result<TokenStream> {
    let Options { name, krate } = Options::parse(attribute)?;
    if let Some((_, path, _)) = &block.trait_ {
        let text =
            "`async_handlers` stands on an `impl` of the state's own methods, not of a trait";
        return Err(Error::new_spanned(path, text));
    }
    let mut handlers = Vec::new();
    for item in &block.items {
        match item {
            ImplItem::Fn(method) => handlers.push(Handler::of(method)?),
            other => return Err(Error::new(other.span(), NOT_A_HANDLER)),
        }
    }
    if handlers.is_empty() {
        return Err(Error::new_spanned(&block.self_ty, NOT_A_HANDLER));
    }
    let handles = handlers.iter().map(|handler| handler.expand(block, &krate));
    let remote = name.map(|name| remote(&name, &handlers, block, &krate));
    Ok(quote! { #block #(#handles)* #remote })
}

/// What lets other nodes send to the actor.
fn remote(name: &LitStr, handlers: &[Handler<'_>], block: &ItemImpl, krate: &Path) -> TokenStream {
    let state = &block.self_ty;
    let (generics, _, bounds) = block.generics.split_for_impl();
    let routes = handlers.iter().map(|Handler { message, .. }| {
        quote_spanned! { message.span() => routes.on::<#message>(); }
    });
    quote! {
        #[automatically_derived]
        impl #generics
            #krate::serial::Takes<#krate::message::Batch<#krate::serial::Serial<Self>>>
            for #state #bounds
        {
            type Result = ();

            fn take(
                actor: &mut #krate::serial::Serial<Self>,
                batch: #krate::message::Batch<#krate::serial::Serial<Self>>,
                context: &mut #krate::serial::Context<#krate::serial::Serial<Self>>,
            ) {
                batch.handle(actor, context);
            }
        }

        #[automatically_derived]
        impl #generics #krate::serial::RemoteState for #state #bounds {
            const NAME: &'static str = #name;

            fn routes(routes: &mut #krate::message::Routes<#krate::serial::Serial<Self>>) {
                #(#routes)*
            }
        }
    }
}

/// What stands in the attribute's parentheses.
struct Options {
    name: Option<LitStr>,
    krate: Path,
}

impl Options {
    fn parse(attribute: TokenStream) -> syn::Result<Self> {
        let (mut name, mut krate) = (None, None);
        let parser = syn::meta::parser(|meta: ParseNestedMeta<'_>| {
            if meta.path.is_ident("name") {
                once(&mut name, wire_name(&meta)?, &meta)
            } else if meta.path.is_ident("crate") {
                once(&mut krate, meta.value()?.parse::<LitStr>()?.parse()?, &meta)
            } else {
                Err(meta.error("expected `name` or `crate`"))
            }
        });
        parser.parse2(attribute)?;
        Ok(Self { name, krate: krate.unwrap_or_else(|| syn::parse_quote!(::synod)) })
    }
}

/// One method that takes a message.
struct Handler<'a> {
    method: &'a Ident,
    message: &'a Type,
    reply: proc_macro2::Span,
    is_async: bool,
}

impl<'a> Handler<'a> {
    fn of(method: &'a ImplItemFn) -> syn::Result<Self> {
        let signature = &method.sig;
        let mut inputs = signature.inputs.iter();
        let (Some(FnArg::Receiver(own)), Some(FnArg::Typed(message)), None) =
            (inputs.next(), inputs.next(), inputs.next())
        else {
            return Err(Error::new_spanned(signature, NOT_A_HANDLER));
        };
        if own.reference.is_none() || own.mutability.is_none() {
            return Err(Error::new_spanned(own, "a handler takes `&mut self`"));
        }
        if !signature.generics.params.is_empty() {
            let text = "a handler takes one type of message, so it cannot be generic";
            return Err(Error::new_spanned(&signature.generics, text));
        }
        if let Type::Reference(reference) = &*message.ty {
            return Err(Error::new_spanned(reference, "a message is taken by value"));
        }
        let reply = match &signature.output {
            ReturnType::Default => signature.ident.span(),
            ReturnType::Type(_, reply) => reply.span(),
        };
        let is_async = signature.asyncness.is_some();
        Ok(Self { method: &signature.ident, message: &message.ty, reply, is_async })
    }

    /// What makes it a handler.
    fn expand(&self, block: &ItemImpl, krate: &Path) -> TokenStream {
        let Self { method, message, reply, is_async } = self;
        let state = &block.self_ty;
        let (generics, _, bounds) = block.generics.split_for_impl();
        let wait = is_async.then(|| quote!(.await));
        // Spanned to the result, so that another one than the message's is shown there.
        let call = quote_spanned! { *reply => self.#method(message) #wait };
        quote_spanned! { message.span() =>
            #[automatically_derived]
            impl #generics #krate::serial::AsyncHandler<#message> for #state #bounds {
                async fn handle(
                    &mut self,
                    message: #message,
                ) -> #krate::serial::ResultOf<#message> {
                    #call
                }
            }

            #[automatically_derived]
            impl #generics #krate::serial::Takes<#message> for #state #bounds {
                type Result = #krate::serial::AtomicResponse<
                    #krate::serial::Serial<Self>,
                    #krate::serial::ResultOf<#message>,
                >;

                fn take(
                    actor: &mut #krate::serial::Serial<Self>,
                    message: #message,
                    _: &mut #krate::serial::Context<#krate::serial::Serial<Self>>,
                ) -> Self::Result {
                    actor.run(message)
                }
            }
        }
    }
}

const NOT_A_HANDLER: &str = "a handler is `async fn name(&mut self, message: M) -> R`; \
                             put everything else into another `impl`";

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(attribute: TokenStream, block: &ItemImpl) -> String {
        expand(attribute, block).err().map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn what_is_no_handler_is_refused_saying_what_one_is() {
        let none = TokenStream::new;
        let blocks: [(ItemImpl, &str); 7] = [
            (syn::parse_quote! { impl Ledger {} }, NOT_A_HANDLER),
            (syn::parse_quote! { impl Ledger { fn new() -> Self { Self } } }, NOT_A_HANDLER),
            (syn::parse_quote! { impl Ledger { const A: u8 = 1; } }, NOT_A_HANDLER),
            (
                syn::parse_quote! { impl Ledger { async fn a(&self, a: A) -> u8 { 1 } } },
                "a handler takes `&mut self`",
            ),
            (
                syn::parse_quote! { impl Ledger { async fn a(&mut self, a: &A) -> u8 { 1 } } },
                "a message is taken by value",
            ),
            (
                syn::parse_quote! { impl Ledger { async fn a<M>(&mut self, a: M) -> u8 { 1 } } },
                "a handler takes one type of message, so it cannot be generic",
            ),
            (
                syn::parse_quote! { impl Clone for Ledger { fn clone(&self) -> Self { Self } } },
                "`async_handlers` stands on an `impl` of the state's own methods, not of a trait",
            ),
        ];
        for (block, why) in blocks {
            assert_eq!(refused(none(), &block), why);
        }
        let good: ItemImpl =
            syn::parse_quote! { impl Ledger { async fn a(&mut self, a: A) -> u8 { 1 } } };
        assert_eq!(refused(quote!(nam = "ledger"), &good), "expected `name` or `crate`");
        assert!(refused(quote!(name = "a ledger"), &good).contains("no spaces"));
        assert_eq!(refused(quote!(name = "ledger"), &good), "");
    }
}
