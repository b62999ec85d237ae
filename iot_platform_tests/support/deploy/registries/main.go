// Reads a registries.yaml as RKE2 does, but strictly: a key that RKE2 would ignore ends it with an error.
package main

import (
	"fmt"
	"os"
	"regexp"

	"github.com/rancher/wharfie/pkg/registries"
	"gopkg.in/yaml.v2"
)

func main() {
	content, err := os.ReadFile(os.Args[1])
	if err == nil {
		var read registries.Registry
		if err = yaml.UnmarshalStrict(content, &read); err == nil {
			for _, mirror := range read.Mirrors {
				for pattern := range mirror.Rewrites {
					if _, broken := regexp.Compile(pattern); broken != nil {
						err = broken
					}
				}
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
