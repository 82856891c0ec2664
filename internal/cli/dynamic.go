// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	controlv1 "github.com/sluice-project/sluice/api/gen/sluice/control/v1"
	"github.com/sluice-project/sluice/internal/fielderr"
)

func newConfig(g *globals) *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Change settings of a policy while it runs",
		Long: `Dynamic configuration: settings that components of a policy read while it runs, such as
the start of a load ramp or the dry run of a load scheduler. Changing them restarts nothing,
makes no new version of the policy, and lasts until it is deleted. A policy says which
settings it has (config_key); "sluice policy config get" lists them.`,
		Example: `  sluice policy config get rollout
  sluice policy config set rollout start=true
  sluice policy config set rollout pass_through_label_values=alice,bob
  sluice policy config delete rollout start`,
		Args: subcommandOnly,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newConfigGet(g), newConfigSet(g), newConfigDelete(g))
	return c
}

// dynamicConfig is what config commands print.
type dynamicConfig struct {
	Policy string         `json:"policy"`
	Config map[string]any `json:"config"`
	Keys   []dynamicKey   `json:"keys"`
}

type dynamicKey struct {
	Key         string `json:"key"`
	Type        string `json:"type"`
	Component   string `json:"component"`
	Description string `json:"description"`
}

func (r *remote) dynamicConfig(ctx context.Context, policy string) (dynamicConfig, error) {
	got, err := call(ctx, r, r.control.GetDynamicConfig, &controlv1.GetDynamicConfigRequest{Policy: policy})
	if err != nil {
		return dynamicConfig{}, err
	}
	out := dynamicConfig{Policy: policy, Config: got.GetConfig().AsMap(), Keys: []dynamicKey{}}
	for _, k := range got.GetKeys() {
		out.Keys = append(out.Keys, dynamicKey{k.GetKey(), k.GetType(), k.GetComponent(), k.GetDescription()})
	}
	return out, nil
}

// typeOf is the type of a key; the error names the keys there are.
func (d dynamicConfig) typeOf(key string) (string, error) {
	var names []string
	for _, k := range d.Keys {
		if k.Key == key {
			return k.Type, nil
		}
		names = append(names, k.Key)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		return "", fmt.Errorf("policy %s reads no dynamic configuration: no component of it has a config key", d.Policy)
	}
	text := fmt.Sprintf("policy %s does not read the key %q", d.Policy, key)
	if hint := fielderr.DidYouMean(key, names); hint != "" {
		return "", fmt.Errorf("%s; %s", text, hint)
	}
	return "", fmt.Errorf("%s; it reads %s", text, strings.Join(names, ", "))
}

func newConfigGet(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:               "get NAME",
		Short:             "Show the settings a policy reads, and what they are set to",
		Example:           "  sluice policy config get rollout\n  sluice policy config get rollout -o json | jq .config",
		Args:              exactArgs(1, "the name of a policy"),
		ValidArgsFunction: completePolicies(g),
		RunE: func(c *cobra.Command, args []string) error {
			return runPolicies(c, g, func(ctx context.Context, r *remote) error {
				d, err := r.dynamicConfig(ctx, args[0])
				if err != nil {
					return err
				}
				return show(g.env.Stdout, g.output, d, func() { d.write(g) })
			})
		},
	}
}

func (d dynamicConfig) write(g *globals) {
	if len(d.Keys) == 0 && len(d.Config) == 0 {
		fmt.Fprintf(g.env.Stdout, "policy %s reads no dynamic configuration\n", clean(d.Policy))
		return
	}
	read := map[string]bool{}
	var rows []string
	for _, k := range d.Keys {
		value := "as the policy says"
		if v, set := d.Config[k.Key]; set {
			value = valueText(v)
		}
		read[k.Key] = true
		rows = append(rows, strings.Join([]string{clean(k.Key), clean(value), k.Type, k.Component, clean(k.Description)}, "\t"))
	}
	for _, key := range slices.Sorted(maps.Keys(d.Config)) {
		if !read[key] {
			rows = append(rows, strings.Join([]string{clean(key), clean(valueText(d.Config[key])), "-", "-", "no component reads it"}, "\t"))
		}
	}
	table(g.env.Stdout, "KEY\tVALUE\tTYPE\tCOMPONENT\tWHAT IT DOES", rows)
}

func valueText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}

func newConfigSet(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "set NAME KEY=VALUE...",
		Short: "Set settings of a policy",
		Long: `Set settings of a policy; the other ones stay as they are. The policy says of which type
each is: true or false, a number, or a list of texts, written a,b,c or as JSON.`,
		Example: `  sluice policy config set rollout start=true
  sluice policy config set checkout dry_run=false setpoint=250
  sluice policy config set rollout 'pass_through_label_values=["a,b", "c"]'`,
		ValidArgsFunction: completePolicies(g),
		Args:              atLeast(2, "the name of a policy and KEY=VALUE"),
		RunE: func(c *cobra.Command, args []string) error {
			return runPolicies(c, g, func(ctx context.Context, r *remote) error {
				d, err := r.dynamicConfig(ctx, args[0])
				if err != nil {
					return err
				}
				config := maps.Clone(d.Config)
				if config == nil {
					config = map[string]any{}
				}
				for _, arg := range args[1:] {
					key, value, err := d.parse(arg)
					if err != nil {
						return err
					}
					config[key] = value
				}
				return r.setDynamicConfig(ctx, g, d, config)
			})
		},
	}
}

func atLeast(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < n {
			return fmt.Errorf("%s: got %s, want %s; see %s --help", c.CommandPath(), plural(len(args), "argument"), what, c.CommandPath())
		}
		return nil
	}
}

// parse reads key=value by the type of the key.
func (d dynamicConfig) parse(arg string) (key string, value any, err error) {
	key, text, ok := strings.Cut(arg, "=")
	if !ok || key == "" {
		return "", nil, fmt.Errorf("got %q, want KEY=VALUE", arg)
	}
	kind, err := d.typeOf(key)
	if err != nil {
		return "", nil, err
	}
	value, err = parseValue(kind, text)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", key, err)
	}
	return key, value, nil
}

func parseValue(kind, text string) (any, error) {
	switch kind {
	case "boolean":
		switch strings.ToLower(text) {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, fmt.Errorf("got %q, want true or false", text)
	case "number":
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("got %q, want a finite number such as 0.5", text)
		}
		return f, nil
	case "list of strings":
		return parseList(text)
	}
	// A type that this program does not know yet: JSON can say everything.
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return nil, fmt.Errorf("got %q, want %s, written as JSON", text, kind)
	}
	return v, nil
}

// parseList reads a,b,c or a JSON list. Nothing at all is the empty list.
func parseList(text string) (any, error) {
	list := []any{}
	if strings.HasPrefix(strings.TrimSpace(text), "[") {
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return nil, fmt.Errorf("got %q, want a list such as a,b,c or [\"a\", \"b\"]", text)
		}
		for _, v := range list {
			if _, ok := v.(string); !ok {
				return nil, fmt.Errorf("got %s in the list, want texts only", valueText(v))
			}
		}
		return list, nil
	}
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list, nil
}

func (r *remote) setDynamicConfig(ctx context.Context, g *globals, d dynamicConfig, config map[string]any) error {
	in, err := structpb.NewStruct(config)
	if err != nil {
		return err
	}
	got, err := call(ctx, r, r.control.SetDynamicConfig, &controlv1.SetDynamicConfigRequest{Policy: d.Policy, Config: in})
	if err != nil {
		return err
	}
	d.Config = got.GetConfig().AsMap()
	return show(g.env.Stdout, g.output, d, func() { d.write(g) })
}

func newConfigDelete(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:               "delete NAME [KEY...]",
		Aliases:           []string{"rm"},
		Short:             "Put settings back to what the policy says",
		Long:              "Put the settings named, or all, back to what the policy says.",
		Example:           "  sluice policy config delete rollout start\n  sluice policy config delete rollout",
		Args:              atLeast(1, "the name of a policy"),
		ValidArgsFunction: completePolicies(g),
		RunE: func(c *cobra.Command, args []string) error {
			return runPolicies(c, g, func(ctx context.Context, r *remote) error {
				if len(args) == 1 {
					if _, err := call(ctx, r, r.control.DeleteDynamicConfig, &controlv1.DeleteDynamicConfigRequest{Policy: args[0]}); err != nil {
						return err
					}
					return show(g.env.Stdout, g.output, dynamicConfig{Policy: args[0], Config: map[string]any{}, Keys: []dynamicKey{}}, func() {
						fmt.Fprintf(g.env.Stdout, "policy %s: all settings are as the policy says\n", clean(args[0]))
					})
				}
				d, err := r.dynamicConfig(ctx, args[0])
				if err != nil {
					return err
				}
				config := maps.Clone(d.Config)
				for _, key := range args[1:] {
					if _, set := config[key]; !set {
						return d.notSet(key)
					}
					delete(config, key)
				}
				return r.setDynamicConfig(ctx, g, d, config)
			})
		},
	}
}

// notSet says that a key is not set, or not known.
func (d dynamicConfig) notSet(key string) error {
	if _, err := d.typeOf(key); err != nil {
		return err
	}
	return errors.New("the key " + strconv.Quote(key) + " is not set: the policy's own value holds already")
}
