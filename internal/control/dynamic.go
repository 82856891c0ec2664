// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sluice-project/sluice/internal/fielderr"
)

// ErrNotKept is returned when dynamic configuration cannot be stored or deleted; nothing has changed then.
var ErrNotKept = errors.New("the store failed")

// checkKeys refuses keys that no component reads.
func (p *Program) checkKeys(config map[string]any) error {
	known := make([]string, 0, len(p.Keys))
	for _, k := range p.Keys {
		known = append(known, k.Key)
	}
	slices.Sort(known)
	known = slices.Compact(known)
	var problems fielderr.List
	for _, key := range slices.Sorted(maps.Keys(config)) {
		if slices.Contains(known, key) {
			continue
		}
		problem := &fielderr.Error{
			Path: key, Message: fmt.Sprintf("no component of policy %q reads this key", p.Policy), Hint: fielderr.OneOf(key, known),
		}
		if len(known) == 0 {
			problem.Message = fmt.Sprintf("policy %q has no dynamic configuration", p.Policy)
			problem.Hint = "name a key in the policy first, such as config_key of a variable"
		}
		problems = append(problems, problem)
	}
	return problems.Err()
}

// cloneConfig copies a configuration as deep as JSON goes.
func cloneConfig(config map[string]any) map[string]any {
	out := make(map[string]any, len(config))
	for key, value := range config {
		out[key] = cloneValue(value)
	}
	return out
}

func cloneValue(value any) any {
	switch v := value.(type) {
	case map[string]any:
		return cloneConfig(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = cloneValue(v[i])
		}
		return out
	case []string:
		return slices.Clone(v)
	}
	return value
}

// restoreConfig gives a policy that starts the dynamic configuration it had. What does not fit any more is
// ignored, with a notice.
func (r *Runtime) restoreConfig(ctx context.Context, u *running) error {
	p := u.program
	config, known := r.configs[p.Policy]
	if !known && r.config.Store != nil {
		var err error
		if config, err = r.config.Store.LoadDynamicConfig(ctx, p.Policy); err != nil {
			err = fmt.Errorf("policy %q: its dynamic configuration cannot be read, so the values of the document count: %w", p.Policy, err)
			u.ignored = []Notice{{Text: err.Error()}}
			return err
		}
	}
	r.configs[p.Policy] = config
	u.ignored = u.configure(config)
	return nil
}

// configure applies what fits of a configuration, and says what does not.
func (u *running) configure(config map[string]any) (ignored []Notice) {
	accepted := map[string]any{}
	try := func() error { return u.circuit.Configure(lookupIn(accepted)) }
	for _, key := range slices.Sorted(maps.Keys(config)) {
		if !slices.ContainsFunc(u.program.Keys, func(k ConfigKey) bool { return k.Key == key }) {
			ignored = append(ignored, Notice{Text: fmt.Sprintf("dynamic configuration: %s is kept and ignored: no component reads it any more", key)})
			continue
		}
		accepted[key] = config[key]
		if err := try(); err != nil {
			delete(accepted, key)
			ignored = append(ignored, Notice{Text: "dynamic configuration is kept and ignored: " + err.Error()})
		}
	}
	return ignored
}

func lookupIn(config map[string]any) func(string) (any, bool) {
	return func(key string) (any, bool) {
		value, ok := config[key]
		return value, ok
	}
}

// Config returns the dynamic configuration of a policy and the keys that its components read. The error is
// ErrNotInForce.
func (r *Runtime) Config(policy string) (map[string]any, []ConfigKey, error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	u := r.byName[policy]
	if u == nil {
		return nil, nil, fmt.Errorf("policy %q: %w", policy, ErrNotInForce)
	}
	return cloneConfig(r.configs[policy]), u.program.Keys, nil
}

// SetConfig replaces the dynamic configuration of a policy; the circuit goes on with it at its next tick. A
// key that no component reads, and a value of the wrong type, is refused, and then nothing changes: the
// error says which, as fielderr.Error values. ErrNotInForce for a policy that is not in force.
func (r *Runtime) SetConfig(ctx context.Context, policy string, config map[string]any) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	u := r.byName[policy]
	if u == nil {
		return fmt.Errorf("policy %q: %w", policy, ErrNotInForce)
	}
	if err := u.program.checkKeys(config); err != nil {
		return err
	}
	config = cloneConfig(config)
	if err := r.configure(u, config); err != nil {
		return err
	}
	if r.config.Store != nil {
		if err := r.config.Store.SaveDynamicConfig(ctx, policy, config); err != nil {
			r.mu.Lock()
			u.ignored = u.configure(r.configs[policy])
			r.mu.Unlock()
			return fmt.Errorf("policy %q: its dynamic configuration cannot be kept, so nothing has changed: %w: %w", policy, ErrNotKept, err)
		}
	}
	r.configs[policy] = config
	return nil
}

// configure is all or nothing.
func (r *Runtime) configure(u *running, config map[string]any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := u.circuit.Configure(lookupIn(config))
	if err == nil {
		u.ignored = nil
	}
	return err
}

// DeleteConfig puts the values of the document back, and forgets what is kept for a policy that is not in
// force.
func (r *Runtime) DeleteConfig(ctx context.Context, policy string) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	if r.config.Store != nil {
		if err := r.config.Store.DeleteDynamicConfig(ctx, policy); err != nil {
			return fmt.Errorf("policy %q: its dynamic configuration cannot be deleted: %w: %w", policy, ErrNotKept, err)
		}
	}
	delete(r.configs, policy)
	if u := r.byName[policy]; u != nil {
		return r.configure(u, nil)
	}
	return nil
}
