// SPDX-License-Identifier: Apache-2.0

package rego

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/sluice-project/sluice/internal/classify"
)

// ruleset is a compiled module.
type ruleset struct {
	language *Language
	query    rego.PreparedEvalQuery
	labels   []labelKey
	needs    needs
	bounds   classify.Bounds
}

type labelKey struct {
	classify.RegoLabel
	term *ast.Term
}

var _ classify.Ruleset = (*ruleset)(nil)

// Eval implements classify.Ruleset.
func (s *ruleset) Eval(in *classify.Input, out []classify.Label) ([]classify.Label, error) {
	stop := &deadline{}
	timer := time.AfterFunc(s.bounds.Timeout, stop.Cancel)
	defer timer.Stop()
	if !s.language.enter(s.bounds.Timeout) {
		return out, &classify.Error{Code: classify.CodeBounds, Message: fmt.Sprintf("no processor was free for rego within %v", s.bounds.Timeout)}
	}
	defer s.language.leave()
	input := inputOf(in, s.needs, s.bounds.MaxBodyBytes)
	var unread []topdown.Error
	results, err := s.query.Eval(context.Background(), rego.EvalParsedInput(input), rego.EvalExternalCancel(stop), rego.EvalBuiltinErrorList(&unread))
	if len(unread) > 0 {
		in.Note(classify.MalformedArgument)
	}
	var refused *classify.Error
	switch {
	case errors.As(err, &refused):
		return out, refused
	case err != nil:
		if stop.Cancelled() || topdown.IsCancel(err) {
			return out, &classify.Error{Code: classify.CodeBounds, Message: fmt.Sprintf("rego took more than %v", s.bounds.Timeout)}
		}
		return out, &classify.Error{Code: classify.CodeEvalFailed, Message: err.Error()}
	}
	variables, problem := only(results)
	if problem != nil {
		return out, problem
	}
	for i := range s.labels {
		l := &s.labels[i]
		value := variables.Get(l.term)
		if value == nil {
			continue
		}
		text, err := textOf(value.Value, s.bounds.MaxBodyBytes)
		if errors.As(err, &refused) {
			return out, &classify.Error{Code: refused.Code, Message: fmt.Sprintf("label %s: %s", l.Key, refused.Message)}
		}
		if err != nil {
			return out, &classify.Error{Code: classify.CodeEvalFailed, Message: fmt.Sprintf("label %s: %v", l.Key, err)}
		}
		out = append(out, classify.NewLabel(l.Key, text, l.Telemetry, s.bounds))
	}
	return out, nil
}

// only is the one value that results should have.
func only(results rego.ResultSet) (ast.Object, *classify.Error) {
	switch {
	case len(results) == 0:
		return nil, &classify.Error{Code: classify.CodeEmptyResultset, Message: "rego gave no result"}
	case len(results) > 1:
		return nil, &classify.Error{Code: classify.CodeAmbiguousResultset, Message: "rego gave several results"}
	case len(results[0].Expressions) != 1:
		return nil, &classify.Error{Code: classify.CodeMultiExpression, Message: "rego gave several expressions"}
	}
	term, _ := results[0].Expressions[0].Value.(*ast.Term)
	if term == nil {
		return nil, &classify.Error{Code: classify.CodeExpressionNotMap, Message: "rego gave no variables"}
	}
	object, ok := term.Value.(ast.Object)
	if !ok {
		return nil, &classify.Error{Code: classify.CodeExpressionNotMap, Message: "rego gave no variables"}
	}
	return object, nil
}

// textOf is the text of a value: that of a string, everything else as JSON writes it.
func textOf(v ast.Value, limit int) (string, error) {
	switch v := v.(type) {
	case ast.String:
		return string(v), nil
	case ast.Number:
		return string(v), nil
	case ast.Boolean, ast.Null:
		return v.String(), nil
	}
	if heavy(v) {
		return "", &classify.Error{Code: classify.CodeBounds, Message: "the value is too large"}
	}
	native, err := ast.JSON(v)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(native)
	if len(text) > limit {
		text = text[:limit]
	}
	return string(text), err
}

// enter waits for a processor, at most until the time is over.
func (l *Language) enter(limit time.Duration) bool {
	select {
	case l.running <- struct{}{}:
		return true
	default:
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case l.running <- struct{}{}:
		return true
	case <-timer.C:
		return false
	}
}

func (l *Language) leave() { <-l.running }

// deadline interrupts an evaluation.
type deadline struct{ over atomic.Bool }

var _ topdown.Cancel = (*deadline)(nil)

// Cancel implements topdown.Cancel.
func (d *deadline) Cancel() { d.over.Store(true) }

// Cancelled implements topdown.Cancel.
func (d *deadline) Cancelled() bool { return d.over.Load() }
