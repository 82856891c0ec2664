// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"encoding/base64"
	"net/netip"
	"strconv"
	"sync/atomic"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	discoveryv1 "github.com/sluice-project/sluice/api/gen/sluice/discovery/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/discovery/v1/discoveryv1connect"
	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/discovery"
	"github.com/sluice-project/sluice/internal/flow"
)

// Directory lists what discovery knows. Its methods may be called concurrently.
type Directory interface {
	// Services lists services by name; more tells that there are others after the last.
	Services(discovery.Query) (services []discovery.Service, more bool)
	// Sources lists where they come from.
	Sources() []discovery.Source
}

var _ Directory = (*discovery.Directory)(nil)

// DiscoveryService answers sluice.discovery.v1.DiscoveryService over gRPC.
type DiscoveryService struct {
	discoveryv1.UnimplementedDiscoveryServiceServer
	engine    *flow.Engine
	directory Directory
	previews  chan struct{} // one for each under way
	shown     atomic.Uint64
	missed    atomic.Uint64
}

// NewDiscoveryService shows what passes the engine, and what directory knows; nil: nothing.
func NewDiscoveryService(engine *flow.Engine, directory Directory) *DiscoveryService {
	return &DiscoveryService{engine: engine, directory: directory, previews: make(chan struct{}, maxPreviews)}
}

// Bounds on pages.
const (
	defaultPage     = 100
	maxPage         = 1_000
	maxPageEntities = 10_000 // of all services together: a megabyte or two
)

func pageSize(size int32) (int, error) {
	switch {
	case size < 0:
		return 0, status.Errorf(codes.InvalidArgument, "page_size is %d; expected 0 (%d) to %d", size, defaultPage, maxPage)
	case size == 0:
		return defaultPage, nil
	}
	return min(int(size), maxPage), nil
}

// pageToken and parsePageToken make it plain that a token is nothing to build by hand.
func pageToken(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func parsePageToken(token string) (string, error) {
	text, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || pageToken(string(text)) != token {
		return "", badPageToken(token)
	}
	return string(text), nil
}

func badPageToken(token string) error {
	return status.Errorf(codes.InvalidArgument, "page_token is %.80q; expected the next_page_token of the answer before, or nothing", token)
}

// ListControlPoints implements DiscoveryServiceServer. Pages follow the order of the moment: a control point that
// becomes busier between two pages may come twice, or not at all.
func (s *DiscoveryService) ListControlPoints(_ context.Context, in *discoveryv1.ListControlPointsRequest) (*discoveryv1.ListControlPointsResponse, error) {
	size, err := pageSize(in.PageSize)
	if err != nil {
		return nil, err
	}
	from := 0
	if in.PageToken != "" {
		text, err := parsePageToken(in.PageToken)
		if err != nil {
			return nil, err
		}
		if from, err = strconv.Atoi(text); err != nil || from < 1 {
			return nil, badPageToken(in.PageToken)
		}
	}
	points := s.engine.Points(in.Prefix, true)
	end := min(len(points), from+size)
	out := &discoveryv1.ListControlPointsResponse{}
	for i := min(from, end); i < end; i++ {
		out.ControlPoints = append(out.ControlPoints, toAPIPoint(&points[i]))
	}
	if end < len(points) {
		out.NextPageToken = pageToken(strconv.Itoa(end))
	}
	return out, nil
}

func toAPIPoint(p *flow.PointView) *discoveryv1.ControlPoint {
	out := &discoveryv1.ControlPoint{
		Name: validText(p.Name), Type: "feature", FlowsPerSecond: p.FlowsPerSecond, DeniedPerSecond: p.DeniedPerSecond,
		Flows: p.Flows, Policies: p.Policies, LastSeen: optionalTime(p.LastSeen),
	}
	if p.HTTP {
		out.Type = "http"
	}
	for _, name := range p.Services {
		out.Services = append(out.Services, validText(name))
	}
	for i := range p.Labels {
		l := &p.Labels[i]
		for i, value := range l.Values {
			l.Values[i] = classify.ShowLabel(l.Key, value)
		}
		out.Labels = append(out.Labels, &discoveryv1.LabelSeen{
			Key: l.Key, Values: l.Values, Distinct: int32(l.Distinct), AtLeast: l.AtLeast, Share: l.Share,
		})
	}
	return out
}

// ListServices implements DiscoveryServiceServer. A page also ends when its services have 10,000 entities together;
// of a single service with more, the first 10,000 are listed.
func (s *DiscoveryService) ListServices(_ context.Context, in *discoveryv1.ListServicesRequest) (*discoveryv1.ListServicesResponse, error) {
	size, err := pageSize(in.PageSize)
	if err != nil {
		return nil, err
	}
	q := discovery.Query{NameContains: in.NameContains, Most: size, MostEntities: maxPageEntities}
	if in.Address != "" {
		if q.Address, err = netip.ParseAddr(in.Address); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "address is %.80q; expected an IP address such as 10.2.0.7", in.Address)
		}
	}
	if in.PageToken != "" {
		if q.After, err = parsePageToken(in.PageToken); err != nil {
			return nil, err
		}
	}
	out := &discoveryv1.ListServicesResponse{}
	if s.directory == nil {
		return out, nil
	}
	services, more := s.directory.Services(q)
	for i := range services {
		out.Services = append(out.Services, toAPIService(&services[i]))
	}
	if more {
		out.NextPageToken = pageToken(services[len(services)-1].Name)
	}
	for _, one := range s.directory.Sources() {
		out.Sources = append(out.Sources, &discoveryv1.Source{
			Name: one.Name, Entities: int32(one.Entities), LastUpdate: optionalTime(one.Updated), Error: validText(one.Problem),
		})
	}
	return out, nil
}

func toAPIService(s *discovery.Service) *discoveryv1.Service {
	out := &discoveryv1.Service{Name: validText(s.Name)}
	for i := range s.Entities {
		e := &s.Entities[i]
		out.Entities = append(out.Entities, &discoveryv1.Entity{
			Address: e.Address, Name: validText(e.Name), Namespace: validText(e.Namespace), Node: validText(e.Node), Source: e.Source,
		})
	}
	return out
}

// PreviewFlows implements DiscoveryServiceServer.
func (s *DiscoveryService) PreviewFlows(in *discoveryv1.PreviewFlowsRequest, stream discoveryv1.DiscoveryService_PreviewFlowsServer) error {
	return s.preview(stream.Context(), in, stream.Send)
}

// DiscoveryConnect serves a DiscoveryService to browsers and curl.
type DiscoveryConnect struct{ Service *DiscoveryService }

var _ discoveryv1connect.DiscoveryServiceHandler = DiscoveryConnect{}

// ListControlPoints implements DiscoveryServiceHandler.
func (c DiscoveryConnect) ListControlPoints(ctx context.Context, in *connect.Request[discoveryv1.ListControlPointsRequest]) (*connect.Response[discoveryv1.ListControlPointsResponse], error) {
	return toConnect(c.Service.ListControlPoints(ctx, in.Msg))
}

// ListServices implements DiscoveryServiceHandler.
func (c DiscoveryConnect) ListServices(ctx context.Context, in *connect.Request[discoveryv1.ListServicesRequest]) (*connect.Response[discoveryv1.ListServicesResponse], error) {
	return toConnect(c.Service.ListServices(ctx, in.Msg))
}

// PreviewFlows implements DiscoveryServiceHandler.
func (c DiscoveryConnect) PreviewFlows(ctx context.Context, in *connect.Request[discoveryv1.PreviewFlowsRequest], s *connect.ServerStream[discoveryv1.PreviewFlowsResponse]) error {
	return toConnectError(c.Service.preview(ctx, in.Msg, s.Send))
}

var (
	previewsDesc = prometheus.NewDesc("sluice_discovery_previews_running", "Previews of flows that are under way.", nil, nil)
	previewDesc  = prometheus.NewDesc("sluice_discovery_preview_flows_total",
		"Flows that previews showed, or missed because the client read slowly, by outcome: shown or missed.", []string{"outcome"}, nil)
)

// previewCollector reads the metrics of previews when they are asked for.
type previewCollector struct{ service *DiscoveryService }

// Collector returns the metrics of previews, to be registered once.
func (s *DiscoveryService) Collector() prometheus.Collector { return previewCollector{s} }

// Describe implements prometheus.Collector.
func (previewCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{previewsDesc, previewDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c previewCollector) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstMetric(previewsDesc, prometheus.GaugeValue, float64(len(c.service.previews)))
	out <- prometheus.MustNewConstMetric(previewDesc, prometheus.CounterValue, float64(c.service.shown.Load()), "shown")
	out <- prometheus.MustNewConstMetric(previewDesc, prometheus.CounterValue, float64(c.service.missed.Load()), "missed")
}
