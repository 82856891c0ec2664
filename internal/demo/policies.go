// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"

	policyv1 "github.com/sluice-project/sluice/api/gen/sluice/policy/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/policy/v1/policyv1connect"
)

// document is one policy of a demo.
type document struct {
	// name of the policy, and the file in the output directory that holds it.
	name, file string
	// text is the blueprint values file, YAML.
	text string
}

// policyStore keeps the policies of a server.
type policyStore interface {
	// get returns what is in force under a name; found is false when nothing is.
	get(ctx context.Context, name string) (p inForce, found bool, err error)
	// apply puts a document into force, as a policy of the demo.
	apply(ctx context.Context, doc document) error
	// remove takes a policy out of force if it is still at that version.
	remove(ctx context.Context, name string, version int64) error
}

// inForce is a policy on the server.
type inForce struct {
	version         int64
	author, comment string
}

// ownComment marks the demo's policies. A file of the report that somebody applies by hand does not carry
// it and is therefore never taken for the demo's.
const ownComment = "applied by sluice demo, which takes it out of force again"

// removePolicies takes the demo's own policies out of force and returns their names. It refuses, before it
// changes anything, when one of the names belongs to somebody else.
func removePolicies(ctx context.Context, store policyStore, docs []document) ([]string, error) {
	versions := map[string]int64{}
	for _, doc := range docs {
		p, found, err := store.get(ctx, doc.name)
		if err != nil {
			return nil, fmt.Errorf("demo: asking the server for policy %q: %w", doc.name, err)
		}
		if !found {
			continue
		}
		if p.comment != ownComment {
			return nil, &foreignPolicyError{name: doc.name, policy: p}
		}
		versions[doc.name] = p.version
	}
	var removed []string
	var errs []error
	for _, doc := range docs {
		version, ok := versions[doc.name]
		if !ok {
			continue
		}
		if err := store.remove(ctx, doc.name, version); err != nil {
			errs = append(errs, fmt.Errorf("demo: policy %q is still in force, take it out with \"sluice policy delete %s\": %w", doc.name, doc.name, err))
			continue
		}
		removed = append(removed, doc.name)
	}
	return removed, errors.Join(errs...)
}

// foreignPolicyError refuses a run because a policy name it needs is taken.
type foreignPolicyError struct {
	name   string
	policy inForce
}

func (e *foreignPolicyError) Error() string {
	by := ""
	if e.policy.author != "" {
		by = " by " + e.policy.author
	}
	return fmt.Sprintf("demo: the server has a policy %q (version %d%s) that is not the demo's, and the demo does not touch it: "+
		"rename it, or delete it with \"sluice policy delete %s\", or run the demo without --server on one of its own",
		e.name, e.policy.version, by, e.name)
}

// serverPolicies is a policyStore on a server.
type serverPolicies struct {
	client policyv1connect.PolicyServiceClient
	base   string // URL, for error messages
}

var _ policyStore = (*serverPolicies)(nil)

// callTimeout bounds one call to the policy service: far more than it needs, and soon enough for a person
// who typed a wrong address.
const callTimeout = 10 * time.Second

func newServerPolicies(server, token string) (*serverPolicies, error) {
	base, err := baseURL(server)
	if err != nil {
		return nil, err
	}
	bearer := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if token != "" {
				req.Header().Set("Authorization", "Bearer "+token)
			}
			return next(ctx, req)
		}
	})
	httpClient := &http.Client{Timeout: callTimeout}
	client := policyv1connect.NewPolicyServiceClient(httpClient, base, connect.WithInterceptors(bearer))
	return &serverPolicies{client: client, base: base}, nil
}

// baseURL turns the address of a server into the URL of its HTTP API.
func baseURL(server string) (string, error) {
	if !strings.Contains(server, "://") {
		server = "http://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("demo.server: got %q, want host:port, http://host:port or https://host:port", server)
	}
	return u.Scheme + "://" + u.Host, nil
}

func (s *serverPolicies) get(ctx context.Context, name string) (inForce, bool, error) {
	resp, err := s.client.GetPolicy(ctx, connect.NewRequest(&policyv1.GetPolicyRequest{Name: name}))
	if connect.CodeOf(err) == connect.CodeNotFound {
		return inForce{}, false, nil
	}
	if connect.CodeOf(err) == connect.CodeUnavailable {
		return inForce{}, false, fmt.Errorf("%w (is a Sluice server running at %s?)", err, s.base)
	}
	if err != nil {
		return inForce{}, false, err
	}
	p := resp.Msg.GetPolicy()
	if p.GetState() == "deleted" {
		return inForce{}, false, nil
	}
	return inForce{version: p.GetVersion(), author: p.GetAuthor(), comment: p.GetComment()}, true, nil
}

func (s *serverPolicies) apply(ctx context.Context, doc document) error {
	_, err := s.client.ApplyPolicy(ctx, connect.NewRequest(&policyv1.ApplyPolicyRequest{
		Document: doc.text, File: doc.file, Author: "sluice demo", Comment: ownComment,
	}))
	return err
}

func (s *serverPolicies) remove(ctx context.Context, name string, version int64) error {
	_, err := s.client.DeletePolicy(ctx, connect.NewRequest(&policyv1.DeletePolicyRequest{
		Name: name, ExpectedVersion: version, Author: "sluice demo", Comment: ownComment,
	}))
	return err
}
