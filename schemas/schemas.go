// SPDX-License-Identifier: Apache-2.0

// Package schemas holds the JSON Schemas of policy documents and of the values of every blueprint, and
// commented values files. They are generated from the types of internal/policy by "go generate
// ./internal/policy"; a test there fails when they differ.
package schemas

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"strings"
)

//go:embed policy.schema.json blueprints
var files embed.FS

// Policy returns the JSON Schema of policy documents.
func Policy() ([]byte, error) { return read("policy.schema.json") }

// Blueprint returns the JSON Schema of the values of a blueprint, such as rate-limiting/base. It stands on its
// own: the published file refers to the definitions of the policy schema beside it, the one returned has
// them.
func Blueprint(name string) ([]byte, error) {
	text, err := read(blueprintFile(name, "schema.json"))
	if err != nil {
		return nil, err
	}
	shared, err := Policy()
	if err != nil {
		return nil, err
	}
	bundle, err := bundle(text, shared)
	if err != nil {
		return nil, fmt.Errorf("schema of blueprint %s: %w", name, err)
	}
	return bundle, nil
}

// policyRef begins references to definitions of the policy schema.
const policyRef = `"../policy.schema.json#/$defs/`

// bundle adds the definitions of the policy schema to another schema that refers to them.
func bundle(text, policy []byte) ([]byte, error) {
	var schema map[string]json.RawMessage
	if err := json.Unmarshal(bytes.ReplaceAll(text, []byte(policyRef), []byte(`"#/$defs/`)), &schema); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	var shared, own struct {
		Defs map[string]json.RawMessage `json:"$defs"`
	}
	if err := json.Unmarshal(policy, &shared); err != nil {
		return nil, fmt.Errorf("read the policy schema: %w", err)
	}
	if raw, ok := schema["$defs"]; ok {
		if err := json.Unmarshal(raw, &own.Defs); err != nil {
			return nil, fmt.Errorf("read definitions: %w", err)
		}
	}
	for name, definition := range own.Defs {
		if _, taken := shared.Defs[name]; taken {
			return nil, fmt.Errorf("the policy schema defines %s, too", name)
		}
		shared.Defs[name] = definition
	}
	defs, err := json.Marshal(shared.Defs)
	if err != nil {
		return nil, fmt.Errorf("write definitions: %w", err)
	}
	schema["$defs"] = defs
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(schema); err != nil {
		return nil, fmt.Errorf("write: %w", err)
	}
	return out.Bytes(), nil
}

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
