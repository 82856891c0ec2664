// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	policyv1 "github.com/sluice-project/sluice/api/gen/sluice/policy/v1"
	"github.com/sluice-project/sluice/internal/document"
	"github.com/sluice-project/sluice/internal/policy/blueprint"
)

func TestToAPIError(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want codes.Code
	}{
		{document.Invalid(document.Problem{Message: "bad"}), codes.InvalidArgument},
		{fmt.Errorf("x: %w", document.ErrNotFound), codes.NotFound},
		{&document.ConflictError{Name: "p", Expected: 1, Actual: 2}, codes.Aborted},
		{document.ErrManagedByDir, codes.FailedPrecondition},
		{document.ErrRefused, codes.FailedPrecondition},
		{document.ErrTooMany, codes.ResourceExhausted},
		{document.ErrStore, codes.Unavailable},
		{document.ErrNotPublished, codes.Internal},
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{errors.New("anything else"), codes.Internal},
	} {
		if got := status.Code(toAPIError(tt.err)); got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.err, got, tt.want)
		}
	}
	secret := fmt.Errorf("%w: /var/lib/secret/path", document.ErrStore)
	if text := toAPIError(secret).Error(); strings.Contains(text, "secret") {
		t.Errorf("the client is told about files of the server: %s", text)
	}
}

func TestMistakesAreDetails(t *testing.T) {
	err := toAPIError(document.Invalid(
		document.Problem{File: "a\xff.yaml", Line: 3, Column: 5, Path: "x.y", Message: "got 1, want 2", Excerpt: "    3 | x"},
		document.Problem{Message: "odd", Warning: true},
	))
	details := status.Convert(err).Details()
	if len(details) != 1 {
		t.Fatalf("got %d details, want 1", len(details))
	}
	list := details[0].(*policyv1.Diagnostics).Diagnostics
	if d := list[0]; d.Line != 3 || d.Column != 5 || d.Path != "x.y" || d.Severity != "error" || d.File != "a\uFFFD.yaml" {
		t.Errorf("got %v", d)
	}
	if list[1].Severity != "warning" {
		t.Errorf("got severity %q, want warning", list[1].Severity)
	}
}

func TestBlueprintsAreDescribed(t *testing.T) {
	s := NewPolicyService(nil, nil)
	list, err := s.ListBlueprints(t.Context(), nil)
	if err != nil || len(list.Blueprints) != len(blueprint.Names()) {
		t.Fatalf("got %v, %v", list, err)
	}
	for _, b := range list.Blueprints {
		got, err := s.GetBlueprint(t.Context(), &policyv1.GetBlueprintRequest{Name: b.Name})
		if err != nil {
			t.Fatal(err)
		}
		required := false
		for _, p := range got.Blueprint.Parameters {
			if p.Type == "" || p.Description == "" {
				t.Errorf("%s: %s has type %q and description %q, want both", b.Name, p.Path, p.Type, p.Description)
			}
			required = required || p.Path == "policy.policy_name" && p.Required
		}
		if !required {
			t.Errorf("%s: policy.policy_name is not listed as required", b.Name)
		}
	}
	_, err = s.GetBlueprint(t.Context(), &policyv1.GetBlueprintRequest{Name: "rate-limitng/base"})
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), `did you mean "rate-limiting/base"?`) {
		t.Errorf("got %v, want not found with a suggestion", err)
	}
}

func TestRenderBlueprint(t *testing.T) {
	s := NewPolicyService(nil, nil)
	b := blueprint.All()[0]
	got, err := s.RenderBlueprint(t.Context(), &policyv1.RenderBlueprintRequest{Values: b.Example})
	if err != nil || got.Name == "" || !strings.Contains(got.Policy, "circuit:") {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = s.RenderBlueprint(t.Context(), &policyv1.RenderBlueprintRequest{Values: strings.Replace(b.Example, "policy_name", "policy_nam", 1), File: "v.yaml"})
	if st := status.Convert(err); st.Code() != codes.InvalidArgument || len(st.Details()) != 1 {
		t.Errorf("got %v, want invalid argument with details", err)
	}
}
