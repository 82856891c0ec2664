// SPDX-License-Identifier: Apache-2.0

package classify

import "fmt"

// Compile compiles a classifier. It checks again what the language of policies checks; an error names the label. A
// classifier without rules and without Rego makes no labels.
func Compile(s Spec) (Ruleset, error) {
	b := s.Bounds.WithDefaults()
	set := &ruleset{}
	seen := map[string]bool{}
	for i := range s.Rules {
		rule := &s.Rules[i]
		if rule.Label == "" || seen[rule.Label] {
			return nil, fmt.Errorf("rule %d: label %q is empty or has a rule already", i, rule.Label)
		}
		seen[rule.Label] = true
		compiled, err := rule.Extractor.compile(b)
		if err != nil {
			return nil, fmt.Errorf("label %s: %w", rule.Label, err)
		}
		setLabel(compiled, Label{Key: rule.Label, Telemetry: rule.Telemetry})
		set.steps = append(set.steps, compiled)
	}
	set.steps = join(set.steps)
	if s.Rego != nil {
		if s.CompileRego == nil {
			return nil, fmt.Errorf("rego: %w", ErrNotCompiled)
		}
		module := *s.Rego
		module.Bounds = b
		var err error
		if set.rego, err = s.CompileRego(module); err != nil {
			return nil, fmt.Errorf("rego: %w", err)
		}
	}
	return set, nil
}

// ruleset runs the rules of a classifier, then its module.
type ruleset struct {
	steps []step
	rego  Ruleset
}

// Eval implements Ruleset.
func (s *ruleset) Eval(in *Input, out []Label) ([]Label, error) {
	before := len(out)
	for _, one := range s.steps {
		var err *Error
		if out, err = one.run(in, out); err != nil {
			return out[:before], err
		}
	}
	if s.rego == nil {
		return out, nil
	}
	extended, err := s.rego.Eval(in, out)
	if err != nil {
		return out[:before], err
	}
	return extended, nil
}
