use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn listed(prefix: &str, service: &str, region: &str) -> Listed {
    Listed {
        prefix: prefix.parse().unwrap(),
        region: normalise(region).into(),
        service: normalise(service).into(),
    }
}

fn said(range: &Range) -> String {
    let text = |name: &Option<Name>| name.as_deref().unwrap_or("-").to_owned();
    format!("{} {} {}", text(&range.cloud), text(&range.region), text(&range.service))
}

/// What the only prefix of a list came out as.
fn kept(provider: Provider, published: &[(&str, &str)]) -> String {
    let all = published.iter().map(|(service, region)| listed("10.0.0.0/8", service, region));
    let ranges = Ranges::new(&[List::new(provider, all)], &[]);
    said(ranges.lookup("10.1.2.3".parse().unwrap()).unwrap())
}

#[test]
fn of_one_prefix_published_twice_the_entry_that_says_more_is_kept() {
    for (provider, published, expected) in [
        (Provider::Aws, &[("service2", "us-west-2"), ("S3", "eu-west-1")][..], "aws eu-west-1 s3"),
        (Provider::Aws, &[("S3", "eu-west-1"), ("service2", "x")], "aws eu-west-1 s3"),
        (Provider::Aws, &[("EC2", "a"), ("AMAZON", "a")], "aws a amazon"),
        (Provider::Aws, &[("AMAZON", "a"), ("EC2", "a")], "aws a amazon"),
        (Provider::Aws, &[("AMAZON", "a"), ("DYNAMODB", "a"), ("EC2", "a")], "aws a dynamodb"),
        // Between two services nobody ranks, the later.
        (Provider::Aws, &[("one", "a"), ("two", "b")], "aws b two"),
        (Provider::Aws, &[("CLOUDFRONT", "GLOBAL")], "aws global cloudfront"),
        (Provider::Gcp, &[("Google Cloud", "a"), ("Google Cloud", "b")], "gcp b googlecloud"),
        (
            Provider::Azure,
            &[("service1", "india"), ("AzureStorage", "Germany West Central")],
            "azure germanywestcentral azurestorage",
        ),
        (
            Provider::Azure,
            &[("AzureStorage", "germanywestcentral"), ("service1", "india")],
            "azure germanywestcentral azurestorage",
        ),
        (Provider::Azure, &[("", "x"), ("non-empty", "global")], "azure global non-empty"),
        (Provider::Azure, &[("azurecloud", "x"), ("AzureSQL", "x")], "azure x azuresql"),
        (Provider::Azure, &[("AzureSQL", "x"), ("azureservice", "y")], "azure x azuresql"),
        (Provider::Azure, &[("AzureSQL", "global"), ("AzureSQL", "east")], "azure east azuresql"),
        (Provider::Azure, &[("AzureSQL", "east"), ("AzureSQL", "global")], "azure east azuresql"),
        (Provider::Azure, &[("AzureSQL", "global"), ("Other", "east")], "azure global azuresql"),
        // Whichever order the file has, storage keeps its region.
        (Provider::Azure, &[("AzureStorage", "e"), ("AzureStorage", "")], "azure e azurestorage"),
        (Provider::Azure, &[("AzureStorage", ""), ("AzureStorage", "e")], "azure e azurestorage"),
    ] {
        assert_eq!(kept(provider, published), expected, "{provider:?} {published:?}");
    }
}

#[test]
fn two_prefixes_of_three_entries() {
    let list = List::new(
        Provider::Aws,
        [
            listed("192.168.0.0/16", "service1", "us-east-1"),
            listed("10.0.0.0/8", "service2", "us-west-2"),
            listed("10.0.0.0/8", "S3", "eu-west-1"),
        ],
    );
    assert_eq!(list.entries().len(), 2);
    let ranges = Ranges::new(&[list], &[]);
    assert_eq!(ranges.prefixes(), 2);
    assert_eq!(
        said(ranges.lookup("192.168.9.9".parse().unwrap()).unwrap()),
        "aws us-east-1 service1"
    );
}

#[test]
fn googles_own_addresses_win_over_its_customers_on_the_same_prefix_only() {
    let gcp = List::new(
        Provider::Gcp,
        [
            listed("8.8.8.0/24", "Google Cloud", "us-east1"),
            listed("34.80.0.0/15", "Google Cloud", "asia-east1"),
        ],
    );
    let google = List::new(
        Provider::Google,
        [
            listed("8.8.8.0/24", "googleservice", "global"),
            listed("34.64.0.0/10", "googleservice", "global"),
        ],
    );
    let ranges = Ranges::new(&[gcp, google], &[]);
    for (address, expected) in [
        ("8.8.8.8", "gcp global googleservice"),
        ("34.80.0.1", "gcp asia-east1 googlecloud"),
        ("34.127.255.255", "gcp global googleservice"),
    ] {
        assert_eq!(said(ranges.lookup(address.parse().unwrap()).unwrap()), expected, "{address}");
    }
}

#[test]
fn an_operator_s_range_wins_and_takes_what_it_leaves_unsaid_from_beneath() {
    let aws = List::new(
        Provider::Aws,
        [listed("52.94.0.0/16", "AMAZON", "us-east-1"), listed("52.94.7.0/24", "S3", "us-east-1")],
    );
    let own = |prefix: &str, name: &str, change: fn(&mut Range)| {
        let mut range = Range { name: Some(name.into()), ..Range::default() };
        change(&mut range);
        (prefix.parse().unwrap(), range)
    };
    let ranges = Ranges::new(
        &[aws],
        &[
            own("52.94.0.0/20", "ours", |range| range.flags = Box::new(["nlb".into()])),
            own("52.94.7.7/32", "elsewhere", |range| range.cloud = Some("colo".into())),
            own("10.1.1.16/32", "cache", |range| {
                range.service = Some("redis".into());
                range.zone = Some("us-west-2a".into());
            }),
        ],
    );
    let at = |address: &str| ranges.lookup(address.parse().unwrap());
    for (address, name, expected) in [
        ("52.94.0.1", "ours", "aws us-east-1 amazon"),
        ("52.94.7.1", "ours", "aws us-east-1 s3"),
        ("52.94.7.7", "elsewhere", "colo - -"),
        ("52.94.16.1", "-", "aws us-east-1 amazon"),
        ("10.1.1.16", "cache", "- - redis"),
    ] {
        let range = at(address).unwrap();
        assert_eq!(range.name.as_deref().unwrap_or("-"), name, "{address}");
        assert_eq!(said(range), expected, "{address}");
    }
    assert_eq!(&*at("52.94.7.1").unwrap().flags, [Name::from("nlb")]);
    assert_eq!(at("10.1.1.16").unwrap().zone.as_deref(), Some("us-west-2a"));
    assert_eq!(at("10.1.1.17"), None);
}

#[test]
fn prefixes_are_read_and_made_equal() {
    for (text, printed) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("fd00::1/8", "fd00::/8"),
        ("fd00::1", "fd00::1/128"),
        ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ("::ffff:0:0/90", "::ffc0:0:0/90"),
    ] {
        assert_eq!(text.parse::<Prefix>().map(|prefix| prefix.to_string()), Ok(printed.into()));
    }
    for text in [
        "",
        "/",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/+8",
        "10.0.0/8",
        "::/129",
        "::/256",
        "x/8",
        "10.0.0.0/8/8",
    ] {
        assert_eq!(text.parse::<Prefix>(), Err(InvalidPrefix), "{text}");
    }
    let block: Prefix = "10.0.0.0/8".parse().unwrap();
    assert!(block.contains("::ffff:10.9.9.9".parse().unwrap()));
    assert!(!block.contains("11.0.0.0".parse().unwrap()));
    assert!(!block.contains("a00::".parse().unwrap()));
}

#[test]
fn nothing_is_in_no_ranges() {
    let none = Ranges::default();
    assert!(none.is_empty());
    assert_eq!(none.lookup(IpAddr::V4(Ipv4Addr::LOCALHOST)), None);
    assert_eq!(none.lookup(IpAddr::V6(Ipv6Addr::LOCALHOST)), None);
}

/// Addresses near each other, so that prefixes nest, meet and end at the family's last address.
fn address() -> impl Strategy<Value = IpAddr> {
    let low = prop_oneof![0_u32..64, u32::MAX - 64..=u32::MAX, any::<u32>()];
    (any::<bool>(), low, any::<bool>()).prop_map(|(is_v6, low, high)| {
        if is_v6 {
            let upper = if high { u128::MAX << 32 } else { 0x2600_u128 << 112 };
            IpAddr::V6(Ipv6Addr::from_bits(upper | u128::from(low)))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(low))
        }
    })
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (address(), prop_oneof![0_u8..=8, 0_u8..=128]).prop_map(|(address, free)| {
        let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
        Prefix::new(address, bits - free.min(bits)).unwrap()
    })
}

proptest! {
    #[test]
    fn finds_what_a_search_through_all_prefixes_finds(
        published in prop::collection::vec(prefix(), 0..60),
        own in prop::collection::vec(prefix(), 0..20),
        asked in prop::collection::vec(address(), 40),
    ) {
        let entries = published.iter().zip(0..).map(|(prefix, number)| Listed {
            prefix: *prefix,
            region: format!("r{number}").into(),
            service: Name::from(""),
        });
        let own: Vec<_> = own.into_iter().zip(0..).map(|(prefix, number)| {
            (prefix, Range { name: Some(format!("n{number}").into()), ..Range::default() })
        }).collect();
        let ranges = Ranges::new(&[List::new(Provider::Gcp, entries)], &own);

        let longest = |prefixes: &[Prefix], address| {
            (0..prefixes.len())
                .filter(|at| prefixes[*at].contains(address))
                .max_by_key(|at| (prefixes[*at].length(), *at))
        };
        let own: Vec<Prefix> = own.into_iter().map(|(prefix, _)| prefix).collect();
        let edges = published.iter().chain(&own).map(Prefix::address);
        for address in asked.into_iter().chain(edges) {
            let found = ranges.lookup(address);
            let name = found.and_then(|range| range.name.as_deref()).map(str::to_owned);
            let region = found.and_then(|range| range.region.as_deref()).map(str::to_owned);
            prop_assert_eq!(name, longest(&own, address).map(|number| format!("n{number}")));
            prop_assert_eq!(region, longest(&published, address).map(|number| format!("r{number}")));
        }
    }
}
