// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	policyv1 "github.com/sluice-project/sluice/api/gen/sluice/policy/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/policy/v1/policyv1connect"
	"github.com/sluice-project/sluice/internal/control"
	"github.com/sluice-project/sluice/internal/document"
)

// PolicyService answers sluice.policy.v1.PolicyService over gRPC. It translates; the catalog decides.
type PolicyService struct {
	policyv1.UnimplementedPolicyServiceServer
	catalog *document.Catalog
	runtime *control.Runtime // nil: components are as the document says
}

// NewPolicyService serves the catalog, and the blueprints of this release. Components of policies in force
// have the status that the runtime tells; it may be nil.
func NewPolicyService(catalog *document.Catalog, runtime *control.Runtime) *PolicyService {
	return &PolicyService{catalog: catalog, runtime: runtime}
}

// live tells of the components of a policy in force how they do now.
func (s *PolicyService) live(p *policyv1.Policy) *policyv1.Policy {
	if s.runtime == nil || p.State != string(document.StateActive) {
		return p
	}
	st, err := s.runtime.Status(p.Name)
	if err != nil || st.Hash != p.Hash {
		return p // about to start
	}
	for _, c := range p.Components {
		c.Status = control.Running
		for i := range st.Components {
			part := &st.Components[i]
			if part.Status != control.Running && (part.ID == c.Id || strings.HasPrefix(part.ID, c.Id+".")) {
				c.Status = part.Status
				break
			}
		}
	}
	return p
}

// author is the holder of the token, who cannot pass for somebody else, or whom the request names.
func author(ctx context.Context, named string) string {
	return cmp.Or(identityOf(ctx).Name, named)
}

// ApplyPolicy implements PolicyServiceServer.
func (s *PolicyService) ApplyPolicy(ctx context.Context, in *policyv1.ApplyPolicyRequest) (*policyv1.ApplyPolicyResponse, error) {
	out, err := s.catalog.Apply(ctx, document.ApplyRequest{
		Source: document.Source{Name: in.Name, File: in.File, Blueprint: in.Blueprint, Text: []byte(in.Document)},
		Author: author(ctx, in.Author), Comment: in.Comment, ExpectedVersion: in.ExpectedVersion,
		DryRun: in.DryRun, Origin: document.OriginAPI,
	})
	if err != nil {
		return nil, toAPIError(err)
	}
	return &policyv1.ApplyPolicyResponse{
		Policy: toAPIPolicy(out.Version), Change: string(out.Change), Warnings: toAPIDiagnostics(out.Warnings),
	}, nil
}

// ValidatePolicy implements PolicyServiceServer.
func (s *PolicyService) ValidatePolicy(ctx context.Context, in *policyv1.ValidatePolicyRequest) (*policyv1.ValidatePolicyResponse, error) {
	out, err := s.catalog.Apply(ctx, document.ApplyRequest{
		Source: document.Source{Name: in.Name, File: in.File, Blueprint: in.Blueprint, Text: []byte(in.Document)},
		DryRun: true, Origin: document.OriginAPI,
	})
	var invalid *document.InvalidError
	switch {
	case errors.As(err, &invalid):
		return &policyv1.ValidatePolicyResponse{Diagnostics: toAPIDiagnostics(invalid.Problems)}, nil
	case errors.Is(err, document.ErrRefused), errors.Is(err, document.ErrManagedByDir), errors.Is(err, document.ErrTooMany):
		problem := document.Problem{File: in.File, Message: err.Error()}
		return &policyv1.ValidatePolicyResponse{Diagnostics: toAPIDiagnostics([]document.Problem{problem})}, nil
	case err != nil:
		return nil, toAPIError(err)
	}
	return &policyv1.ValidatePolicyResponse{
		Valid: true, Diagnostics: toAPIDiagnostics(out.Warnings), Policy: toAPIPolicy(out.Version),
	}, nil
}

// GetPolicy implements PolicyServiceServer.
func (s *PolicyService) GetPolicy(ctx context.Context, in *policyv1.GetPolicyRequest) (*policyv1.GetPolicyResponse, error) {
	v, err := s.catalog.Get(ctx, in.Name, in.Version)
	if err != nil {
		return nil, toAPIError(err)
	}
	return &policyv1.GetPolicyResponse{Policy: s.live(toAPIPolicy(v))}, nil
}

// ListPolicies implements PolicyServiceServer.
func (s *PolicyService) ListPolicies(ctx context.Context, in *policyv1.ListPoliciesRequest) (*policyv1.ListPoliciesResponse, error) {
	page, err := s.catalog.List(ctx, document.PageRequest{Size: int(in.PageSize), Token: in.PageToken})
	if err != nil {
		return nil, toAPIError(err)
	}
	list := toAPIPolicies(page.Versions)
	for _, p := range list {
		s.live(p)
	}
	return &policyv1.ListPoliciesResponse{Policies: list, NextPageToken: page.Next}, nil
}

// ListPolicyVersions implements PolicyServiceServer.
func (s *PolicyService) ListPolicyVersions(ctx context.Context, in *policyv1.ListPolicyVersionsRequest) (*policyv1.ListPolicyVersionsResponse, error) {
	page, err := s.catalog.History(ctx, in.Name, document.PageRequest{Size: int(in.PageSize), Token: in.PageToken})
	if err != nil {
		return nil, toAPIError(err)
	}
	return &policyv1.ListPolicyVersionsResponse{Versions: toAPIPolicies(page.Versions), NextPageToken: page.Next}, nil
}

// DeletePolicy implements PolicyServiceServer.
func (s *PolicyService) DeletePolicy(ctx context.Context, in *policyv1.DeletePolicyRequest) (*policyv1.DeletePolicyResponse, error) {
	v, err := s.catalog.Delete(ctx, document.DeleteRequest{
		Name: in.Name, Author: author(ctx, in.Author), Comment: in.Comment,
		ExpectedVersion: in.ExpectedVersion, Origin: document.OriginAPI,
	})
	if err != nil {
		return nil, toAPIError(err)
	}
	return &policyv1.DeletePolicyResponse{Policy: toAPIPolicy(v)}, nil
}

// RollbackPolicy implements PolicyServiceServer.
func (s *PolicyService) RollbackPolicy(ctx context.Context, in *policyv1.RollbackPolicyRequest) (*policyv1.RollbackPolicyResponse, error) {
	out, err := s.catalog.Rollback(ctx, document.RollbackRequest{
		Name: in.Name, Version: in.Version, Author: author(ctx, in.Author), Comment: in.Comment,
	})
	if err != nil {
		return nil, toAPIError(err)
	}
	return &policyv1.RollbackPolicyResponse{Policy: toAPIPolicy(out.Version)}, nil
}

// toAPIError gives an error of the catalog its code. Documents with mistakes carry Diagnostics.
func toAPIError(err error) error {
	var invalid *document.InvalidError
	switch {
	case errors.As(err, &invalid):
		return refused(invalid.Error(), toAPIDiagnostics(invalid.Problems))
	case errors.Is(err, document.ErrNotFound):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, document.ErrVersionConflict):
		return status.Error(codes.Aborted, err.Error())
	case errors.Is(err, document.ErrManagedByDir), errors.Is(err, document.ErrRefused):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, document.ErrTooMany):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, document.ErrStore):
		return status.Error(codes.Unavailable, "the change could not be made durable and is not in force: the log of the server has the reason")
	case errors.Is(err, document.ErrNotPublished):
		return status.Error(codes.Internal, err.Error())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.Internal, err.Error())
}

// refused is the error for a document with mistakes.
func refused(message string, mistakes []*policyv1.Diagnostic) error {
	st := status.New(codes.InvalidArgument, validText(message))
	if with, err := st.WithDetails(&policyv1.Diagnostics{Diagnostics: mistakes}); err == nil {
		st = with
	}
	return st.Err()
}

func toAPIPolicies(vs []document.Version) []*policyv1.Policy {
	out := make([]*policyv1.Policy, len(vs))
	for i, v := range vs {
		out[i] = toAPIPolicy(v)
	}
	return out
}

func toAPIPolicy(v document.Version) *policyv1.Policy {
	out := &policyv1.Policy{
		Name: v.Name, Version: v.Version, Hash: v.Hash, Document: v.Document, Blueprint: v.Blueprint,
		Author: v.Author, Comment: v.Comment, Source: string(v.Source), State: string(v.State),
	}
	if !v.CreateTime.IsZero() {
		out.CreateTime = timestamppb.New(v.CreateTime)
	}
	for _, c := range v.Components {
		out.Components = append(out.Components, &policyv1.Component{
			Id: c.ID, Kind: c.Kind, Status: c.Status, ControlPoints: c.ControlPoints,
		})
	}
	return out
}

func toAPIDiagnostics(problems []document.Problem) []*policyv1.Diagnostic {
	out := make([]*policyv1.Diagnostic, len(problems))
	for i, p := range problems {
		severity := "error"
		if p.Warning {
			severity = "warning"
		}
		out[i] = &policyv1.Diagnostic{
			File: validText(p.File), Line: int32(p.Line), Column: int32(p.Column), Path: validText(p.Path),
			Message: validText(p.Message), Excerpt: validText(p.Excerpt), Severity: severity,
		}
	}
	return out
}

// validText makes text fit for protobuf.
func validText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// PolicyConnect serves a PolicyService to browsers and curl.
type PolicyConnect struct{ Service *PolicyService }

var _ policyv1connect.PolicyServiceHandler = PolicyConnect{}

// ApplyPolicy implements PolicyServiceHandler.
func (c PolicyConnect) ApplyPolicy(ctx context.Context, in *connect.Request[policyv1.ApplyPolicyRequest]) (*connect.Response[policyv1.ApplyPolicyResponse], error) {
	return toConnect(c.Service.ApplyPolicy(ctx, in.Msg))
}

// ValidatePolicy implements PolicyServiceHandler.
func (c PolicyConnect) ValidatePolicy(ctx context.Context, in *connect.Request[policyv1.ValidatePolicyRequest]) (*connect.Response[policyv1.ValidatePolicyResponse], error) {
	return toConnect(c.Service.ValidatePolicy(ctx, in.Msg))
}

// GetPolicy implements PolicyServiceHandler.
func (c PolicyConnect) GetPolicy(ctx context.Context, in *connect.Request[policyv1.GetPolicyRequest]) (*connect.Response[policyv1.GetPolicyResponse], error) {
	return toConnect(c.Service.GetPolicy(ctx, in.Msg))
}

// ListPolicies implements PolicyServiceHandler.
func (c PolicyConnect) ListPolicies(ctx context.Context, in *connect.Request[policyv1.ListPoliciesRequest]) (*connect.Response[policyv1.ListPoliciesResponse], error) {
	return toConnect(c.Service.ListPolicies(ctx, in.Msg))
}

// DeletePolicy implements PolicyServiceHandler.
func (c PolicyConnect) DeletePolicy(ctx context.Context, in *connect.Request[policyv1.DeletePolicyRequest]) (*connect.Response[policyv1.DeletePolicyResponse], error) {
	return toConnect(c.Service.DeletePolicy(ctx, in.Msg))
}

// ListPolicyVersions implements PolicyServiceHandler.
func (c PolicyConnect) ListPolicyVersions(ctx context.Context, in *connect.Request[policyv1.ListPolicyVersionsRequest]) (*connect.Response[policyv1.ListPolicyVersionsResponse], error) {
	return toConnect(c.Service.ListPolicyVersions(ctx, in.Msg))
}

// RollbackPolicy implements PolicyServiceHandler.
func (c PolicyConnect) RollbackPolicy(ctx context.Context, in *connect.Request[policyv1.RollbackPolicyRequest]) (*connect.Response[policyv1.RollbackPolicyResponse], error) {
	return toConnect(c.Service.RollbackPolicy(ctx, in.Msg))
}

// ListBlueprints implements PolicyServiceHandler.
func (c PolicyConnect) ListBlueprints(ctx context.Context, in *connect.Request[policyv1.ListBlueprintsRequest]) (*connect.Response[policyv1.ListBlueprintsResponse], error) {
	return toConnect(c.Service.ListBlueprints(ctx, in.Msg))
}

// GetBlueprint implements PolicyServiceHandler.
func (c PolicyConnect) GetBlueprint(ctx context.Context, in *connect.Request[policyv1.GetBlueprintRequest]) (*connect.Response[policyv1.GetBlueprintResponse], error) {
	return toConnect(c.Service.GetBlueprint(ctx, in.Msg))
}

// RenderBlueprint implements PolicyServiceHandler.
func (c PolicyConnect) RenderBlueprint(ctx context.Context, in *connect.Request[policyv1.RenderBlueprintRequest]) (*connect.Response[policyv1.RenderBlueprintResponse], error) {
	return toConnect(c.Service.RenderBlueprint(ctx, in.Msg))
}
