// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"

	policyv1 "github.com/sluice-project/sluice/api/gen/sluice/policy/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/policy/v1/policyv1connect"
)

// policyService keeps one version per policy, and asks for a token.
type policyService struct {
	policyv1connect.UnimplementedPolicyServiceHandler
	policies map[string]*policyv1.Policy
}

func (s *policyService) allow(req connect.AnyRequest) error {
	if req.Header().Get("Authorization") != "Bearer secret" {
		return connect.NewError(connect.CodeUnauthenticated, errors.New("want a token"))
	}
	return nil
}

func (s *policyService) GetPolicy(_ context.Context, req *connect.Request[policyv1.GetPolicyRequest]) (*connect.Response[policyv1.GetPolicyResponse], error) {
	if err := s.allow(req); err != nil {
		return nil, err
	}
	p := s.policies[req.Msg.GetName()]
	if p == nil {
		return nil, connect.NewError(connect.CodeNotFound, errors.New("no such policy"))
	}
	return connect.NewResponse(&policyv1.GetPolicyResponse{Policy: p}), nil
}

func (s *policyService) ApplyPolicy(_ context.Context, req *connect.Request[policyv1.ApplyPolicyRequest]) (*connect.Response[policyv1.ApplyPolicyResponse], error) {
	if err := s.allow(req); err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(req.Msg.GetDocument(), "policy_name: ")
	name, _, _ := strings.Cut(rest, "\n")
	s.policies[name] = &policyv1.Policy{
		Name: name, Version: 4, Comment: req.Msg.GetComment(), Author: req.Msg.GetAuthor(), State: "active", Document: req.Msg.GetDocument(),
	}
	return connect.NewResponse(&policyv1.ApplyPolicyResponse{Policy: s.policies[name]}), nil
}

func (s *policyService) DeletePolicy(_ context.Context, req *connect.Request[policyv1.DeletePolicyRequest]) (*connect.Response[policyv1.DeletePolicyResponse], error) {
	if err := s.allow(req); err != nil {
		return nil, err
	}
	p := s.policies[req.Msg.GetName()]
	if p == nil || p.GetVersion() != req.Msg.GetExpectedVersion() {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("another version is in force"))
	}
	p.State = "deleted"
	return connect.NewResponse(&policyv1.DeletePolicyResponse{Policy: p}), nil
}

func TestServerPolicies(t *testing.T) {
	service := &policyService{policies: map[string]*policyv1.Policy{}}
	_, handler := policyv1connect.NewPolicyServiceHandler(service)
	server := httptest.NewServer(handler)
	defer server.Close()
	ctx := t.Context()
	docs := []document{{name: mistralPolicy, file: "policy.yaml", text: mistralDocument(Config{Scale: 100})}}

	store, err := newServerPolicies(strings.TrimPrefix(server.URL, "http://"), "secret")
	if err != nil {
		t.Fatal(err)
	}
	if _, found, err := store.get(ctx, mistralPolicy); found || err != nil {
		t.Fatalf("get from an empty server: %t, %v; want not found", found, err)
	}
	if err := store.apply(ctx, docs[0]); err != nil {
		t.Fatal(err)
	}
	if p := service.policies[mistralPolicy]; p.GetDocument() != docs[0].text || p.GetAuthor() != "sluice demo" {
		t.Errorf("the server got %v", p)
	}
	removed, err := removePolicies(ctx, store, docs)
	if err != nil || len(removed) != 1 {
		t.Fatalf("removed %q, %v; want the one", removed, err)
	}
	if removed, err = removePolicies(ctx, store, docs); err != nil || len(removed) != 0 {
		t.Errorf("removed %q, %v from a server that has it deleted; want nothing", removed, err)
	}

	stranger, err := newServerPolicies(server.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := stranger.get(ctx, mistralPolicy); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("get without token: %v, want unauthenticated", err)
	}
	if _, err := removePolicies(ctx, stranger, docs); err == nil || !strings.Contains(err.Error(), mistralPolicy) {
		t.Errorf("removing without token: %v, want an error that names the policy", err)
	}
}

// A policy that somebody edited while the demo ran is theirs from then on.
func TestEditedPolicyStays(t *testing.T) {
	f := newFakeServer(nil, nil)
	f.policies["p"] = inForce{version: 2, author: "bob", comment: "more slots"}
	_, err := removePolicies(t.Context(), f, []document{{name: "p"}})
	if _, ok := errors.AsType[*foreignPolicyError](err); !ok || len(f.policies) != 1 {
		t.Errorf("got %v, %d policies left; want it refused and left alone", err, len(f.policies))
	}
}

func TestBaseURL(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:8080": "http://127.0.0.1:8080", "http://a:1": "http://a:1", "https://a/": "https://a", "[::1]:9": "http://[::1]:9",
		"": "", "ftp://a": "", "http://": "", "a b": "", "unix:///x": "",
	} {
		got, err := baseURL(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("baseURL(%q): got %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestDocuments(t *testing.T) {
	cfg := Config{Scale: 7}
	docs := append(quotaDocuments(cfg), document{name: mistralPolicy, text: mistralDocument(cfg)})
	for i, want := range []string{"interval: 8.571428571s", "tokens_label_key: estimated_tokens", "max_inflight_duration: 8.571428571s"} {
		if !strings.Contains(docs[i].text, want) {
			t.Errorf("%s lacks %q:\n%s", docs[i].name, want, docs[i].text)
		}
		if strings.Contains(docs[i].text, "%!") || strings.Contains(docs[i].text, "\t") {
			t.Errorf("%s is malformed:\n%s", docs[i].name, docs[i].text)
		}
	}
	if doc := mistralDocument(Config{Scale: 1000}); !strings.Contains(doc, "max_inflight_duration: 2s") {
		t.Errorf("a fast demo must keep slots for at least 2 s:\n%s", doc)
	}
}
