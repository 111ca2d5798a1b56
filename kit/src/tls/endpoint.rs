use hyper::Uri;
use rustls::pki_types::ServerName;

/// Where a gateway is reached: what a join file names, and so what a gateway may put into one.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub name: ServerName<'static>,
    /// For the Host field of a request.
    pub authority: String,
}

impl Endpoint {
    /// Reads `https://host:port`; `None` when it is anything else.
    pub fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority()?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if uri.scheme_str() != Some("https") || !bare || authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Self {
            name: ServerName::try_from(host.clone()).ok()?,
            host,
            port: authority.port_u16().unwrap_or(443),
            authority: authority.as_str().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let endpoint = Endpoint::parse("https://[::1]:8443").unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("::1", 8443));
        assert_eq!(Endpoint::parse("https://gw.example/").unwrap().port, 443);
        for bad in
            ["http://a:1", "https://", "https://u@a:1", "https://a:1/x", "a:1", "https://a b"]
        {
            assert!(Endpoint::parse(bad).is_none(), "{bad}");
        }
    }
}
