// SPDX-License-Identifier: Apache-2.0

// Package schemas holds the JSON Schemas of policy documents and of the values of every blueprint, and
// commented values files. They are generated from the types of internal/policy by "go generate
// ./internal/policy"; a test there fails when they differ.
package schemas

import (
	"embed"
	"fmt"
	"strings"
)

//go:embed policy.schema.json blueprints
var files embed.FS

// Policy returns the JSON Schema of policy documents.
func Policy() ([]byte, error) { return read("policy.schema.json") }

// Blueprint returns the JSON Schema of the values of a blueprint, such as rate-limiting/base.
func Blueprint(name string) ([]byte, error) { return read(blueprintFile(name, "schema.json")) }

// Values returns the commented values file of a blueprint, with every default.
func Values(name string) ([]byte, error) { return read(blueprintFile(name, "values.yaml")) }

func blueprintFile(name, suffix string) string {
	return "blueprints/" + strings.ReplaceAll(name, "/", ".") + "." + suffix
}

func read(name string) ([]byte, error) {
	b, err := files.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("no schema is called %s: %w", name, err)
	}
	return b, nil
}
