// Says what ArgoCD would show for objects: its own health functions and Lua scripts, over a JSON list of objects on standard input. Prints a list
// of {"status", "message"}, null where ArgoCD has no check. Arguments: GROUP/KIND=FILE, a Lua script of ours, as argocd-cm has it.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/health"
	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	scripts := lua.ResourceHealthOverrides{}
	for _, argument := range arguments {
		kind, file, _ := strings.Cut(argument, "=")
		script, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		scripts[kind] = v1alpha1.ResourceOverride{HealthLua: string(script)}
	}
	var objects []*unstructured.Unstructured
	if err := json.NewDecoder(os.Stdin).Decode(&objects); err != nil {
		return err
	}
	found := make([]*health.HealthStatus, 0, len(objects))
	for _, object := range objects {
		status, err := health.GetResourceHealth(object, scripts)
		if err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
		found = append(found, status)
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}
