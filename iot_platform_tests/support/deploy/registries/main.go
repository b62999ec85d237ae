// Reads a registries.yaml as RKE2 does, but strictly: a key that RKE2 would ignore ends it with an error. Then asks for images as RKE2 asks
// for its own, and prints their digests.
package main

import (
	"fmt"
	"os"
	"regexp"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/rancher/wharfie/pkg/registries"
	"gopkg.in/yaml.v2"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(file string, images []string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var read registries.Registry
	if err := yaml.UnmarshalStrict(content, &read); err != nil {
		return err
	}
	for _, mirror := range read.Mirrors {
		for pattern := range mirror.Rewrites {
			if _, err := regexp.Compile(pattern); err != nil {
				return err
			}
		}
	}
	private, err := registries.GetPrivateRegistries(file)
	if err != nil {
		return err
	}
	for _, image := range images {
		reference, err := name.ParseReference(image)
		if err != nil {
			return err
		}
		found, err := private.Image(reference)
		if err != nil {
			return err
		}
		digest, err := found.Digest()
		if err != nil {
			return err
		}
		fmt.Println(digest)
	}
	return nil
}
