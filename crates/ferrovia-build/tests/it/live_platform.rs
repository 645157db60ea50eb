//! The platform's builder end to end: trees in, images out, on this machine.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ferrovia_build::Builder;

use crate::site::{Site, with_site};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples")
        .join(name)
}

fn size_of_work(site: &Site) -> usize {
    std::fs::read_dir(site.served.directory.path().join("buildkit/work")).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_without_dependencies_becomes_an_image() {
    with_site(async |site| {
        let request = site.request(&example("hello")).await;
        let began = Instant::now();
        let (planned, built) = site
            .build(&request)
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
        eprintln!("first build: {:?}", began.elapsed());
        assert_eq!(planned.builder, "auto");
        assert!(
            built.config["ExposedPorts"]["8080/tcp"].is_object(),
            "{:#}",
            built.config
        );
        assert!(built.size_bytes > 1_000_000);
        assert!(site.builder.has_image(&built.image).await.unwrap());

        // The same tree has the same key: control does not build at all.
        let again = site.builder.plan(&request).await.unwrap();
        assert_eq!(again.image_key, planned.image_key);
        // Built all the same, it comes out of the cache.
        let began = Instant::now();
        let (_, same) = site.build(&request).await.unwrap();
        eprintln!("built again: {:?}", began.elapsed());
        assert_eq!(same.image, built.image);
        assert!(began.elapsed() < Duration::from_secs(10));

        site.builder.remove_image(&built.image).await.unwrap();
        assert!(!site.builder.has_image(&built.image).await.unwrap());
        site.builder.remove_image(&built.image).await.unwrap();
        assert_eq!(size_of_work(&site), 0);
    })
    .await;
}
