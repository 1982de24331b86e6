use super::*;

fn entries(published: &Published) -> Vec<String> {
    let entries = published.list.entries().iter();
    entries
        .map(|listed| format!("{} {} {}", listed.prefix, listed.region, listed.service))
        .collect()
}

const AWS: &str = r#"{
  "syncToken": "1700000000", "createDate": "2026-01-31-08-09-10",
  "prefixes": [
    {"ip_prefix": "3.5.140.0/22", "region": "ap-northeast-2", "service": "AMAZON", "network_border_group": "ap-northeast-2"},
    {"ip_prefix": "3.5.140.0/22", "region": "ap-northeast-2", "service": "S3", "network_border_group": "ap-northeast-2"},
    {"ip_prefix": "3.5.140.0/22", "region": "ap-northeast-2", "service": "EC2", "network_border_group": "ap-northeast-2"},
    {"ip_prefix": "13.32.0.0/15", "region": "GLOBAL", "service": "CLOUDFRONT", "network_border_group": "GLOBAL"}
  ],
  "ipv6_prefixes": [
    {"ipv6_prefix": "2600:9000::/28", "region": "GLOBAL", "service": "CLOUDFRONT", "network_border_group": "GLOBAL"}
  ]
}"#;

const AZURE: &str = r#"{
  "changeNumber": 1, "cloud": "Public",
  "values": [
    {"name": "AzureCloud.germanywc", "id": "AzureCloud.germanywc", "properties": {
      "changeNumber": 1, "region": "Germany West Central", "systemService": "",
      "addressPrefixes": ["1.1.1.1/32", "2.2.2.2/32", "2603:1020:c00::/47"], "networkFeatures": ["API", "NSG"]}},
    {"name": "Storage", "properties": {"region": "", "systemService": "AzureStorage", "addressPrefixes": ["1.1.1.1/32"]}},
    {"name": "Storage.GermanyWC", "properties": {
      "region": "germanywestcentral", "systemService": "AzureStorage", "addressPrefixes": ["1.1.1.1/32"]}},
    {"name": "ServiceOne", "properties": {"region": "india", "systemService": "ServiceOne", "addressPrefixes": ["1.1.1.1/32"]}},
    {"name": "Else", "properties": {"region": "", "systemService": "", "addressPrefixes": ["3.3.3.3/32"]}}
  ]
}"#;

#[test]
fn each_provider_s_file_is_read_with_both_families() {
    let aws = parse(Provider::Aws, AWS.as_bytes());
    assert_eq!(
        entries(&aws),
        [
            "3.5.140.0/22 ap-northeast-2 s3",
            "13.32.0.0/15 global cloudfront",
            "2600:9000::/28 global cloudfront",
        ]
    );
    assert_eq!(aws.as_of, Some(jiff::civil::date(2026, 1, 31)));
    assert_eq!((aws.invalid, aws.surplus, aws.damage), (0, 0, None));

    let gcp = parse(
        Provider::Gcp,
        br#"{"syncToken": "1", "creationTime": "2026-02-01T07:04:10.461788", "prefixes": [
            {"ipv4Prefix": "34.80.0.0/15", "service": "Google Cloud", "scope": "asia-east1"},
            {"ipv6Prefix": "2600:1900:4030::/44", "service": "Google Cloud", "scope": "asia-east1"}]}"#,
    );
    assert_eq!(
        entries(&gcp),
        ["34.80.0.0/15 asia-east1 googlecloud", "2600:1900:4030::/44 asia-east1 googlecloud"]
    );
    assert_eq!(gcp.as_of, Some(jiff::civil::date(2026, 2, 1)));

    let google = parse(
        Provider::Google,
        br#"{"prefixes": [{"ipv4Prefix": "8.8.8.0/24"}, {"ipv6Prefix": "2001:4860::/32"}]}"#,
    );
    assert_eq!(
        entries(&google),
        ["8.8.8.0/24 global googleservice", "2001:4860::/32 global googleservice"]
    );
    assert_eq!(google.as_of, None);

    assert_eq!(
        entries(&parse(Provider::Azure, AZURE.as_bytes())),
        [
            "1.1.1.1/32 germanywestcentral azurestorage",
            "2.2.2.2/32 germanywestcentral azurecloud",
            "3.3.3.3/32 global azureservice",
            "2603:1020:c00::/47 germanywestcentral azurecloud",
        ]
    );
}

#[test]
fn an_entry_that_cannot_be_read_is_counted_and_the_rest_kept() {
    for (provider, file) in [
        (
            Provider::Aws,
            r#"{"prefixes": [1, null, {}, {"ip_prefix": 7}, {"ip_prefix": "10.0.0.0/33"},
            {"ip_prefix": ["x"]}, [[]], "x", {"ip_prefix": "1.0.0.0/8", "region": {"a": 1}, "service": "LONG"}]}"#,
        ),
        (
            Provider::Gcp,
            r#"{"prefixes": [{"ipv4Prefix": "1.2.3.4/8/8"}, {"ipv4Prefix": "1.0.0.0/8"}, 1, 2, 3, 4, 5, 6, {"ipv6Prefix": true}]}"#,
        ),
        (
            Provider::Google,
            r#"{"prefixes": [{"ipv4Prefix": "1.0.0.0/8"}, 1, 2, 3, 4, 5, 6, 7, 8]}"#,
        ),
        (
            Provider::Azure,
            r#"{"values": [7, {"properties": []}, {"properties": {"addressPrefixes":
            ["1.0.0.0/8", "1.0.0.0/", 1, {}, [], null, "x", "::/129", "1.2.3.4/-1"]}}]}"#,
        ),
    ] {
        let file = file.replace("LONG", &"x".repeat(MAX_NAME_BYTES));
        let published = parse(provider, file.as_bytes());
        assert_eq!(published.list.entries().len(), 1, "{provider:?}");
        assert_eq!((published.invalid, published.damage), (8, None), "{provider:?}");
    }
    let long = r#"{"prefixes": [{"ip_prefix": "1.0.0.0/8", "service": "LONG"}]}"#;
    let long = parse(Provider::Aws, long.replace("LONG", &"x".repeat(97)).as_bytes());
    assert_eq!((long.list.entries().len(), long.invalid), (0, 1));
}

#[test]
fn of_a_file_that_breaks_off_what_came_before_is_kept() {
    let at = AWS.find("13.32").unwrap();
    let aws = parse(Provider::Aws, &AWS.as_bytes()[..at]);
    assert_eq!(entries(&aws), ["3.5.140.0/22 ap-northeast-2 s3"]);
    assert!(aws.damage.unwrap().contains("EOF"));

    let at = AZURE.find("ServiceOne").unwrap();
    let azure = parse(Provider::Azure, &AZURE.as_bytes()[..at]);
    assert_eq!(azure.list.entries().len(), 3);
    assert!(azure.damage.is_some());

    for file in ["", "<html>", "[", "\u{0}", r#"{"prefixes": [}"#, r"{} {}"] {
        let published = parse(Provider::Aws, file.as_bytes());
        assert!(published.damage.is_some(), "{file}");
        assert!(published.list.entries().is_empty());
    }
    // Sound JSON of another shape is not damage: it is a file without prefixes.
    for file in ["{}", "[]", "7", r#"{"prefixes": {}}"#, r#"{"prefixes": null}"#] {
        let published = parse(Provider::Aws, file.as_bytes());
        assert_eq!((published.list.entries().len(), published.damage), (0, None), "{file}");
    }
}

#[test]
fn a_file_may_be_neither_too_large_nor_too_full_nor_too_deep() {
    let large = parse(Provider::Aws, &vec![b' '; MAX_FILE_BYTES + 1]);
    assert_eq!(large.damage.as_deref(), Some("it is larger than 32 MiB and was not read"));

    let one = r#"{"ipv4Prefix":"1.0.0.0/8"},"#;
    let full = format!(r#"{{"prefixes":[{}0]}}"#, one.repeat(MAX_PREFIXES + 3));
    let full = parse(Provider::Google, full.as_bytes());
    assert_eq!((full.surplus, full.invalid, full.damage), (3, 1, None));

    let deep = format!(r#"{{"prefixes":[{}"#, "[".repeat(100_000));
    assert!(parse(Provider::Google, deep.as_bytes()).damage.is_some());
}

#[test]
fn the_day_of_azure_s_file_is_in_its_name() {
    assert_eq!(
        day_in_name("ServiceTags_Public_20260131.json"),
        Some(jiff::civil::date(2026, 1, 31))
    );
    for name in ["ServiceTags_Public_20261331.json", "ServiceTags_Public_.json", "x", ""] {
        assert_eq!(day_in_name(name), None, "{name}");
    }
}
