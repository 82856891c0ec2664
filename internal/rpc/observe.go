// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/observe/v1/observev1connect"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/sched"
)

// ServerInfo tells about this server.
type ServerInfo struct {
	Version, DataDir string
	Start            time.Time
	// Policies counts the policies in force; nil: none.
	Policies func() int
}

// ObserveService answers sluice.observe.v1.ObserveService over gRPC.
type ObserveService struct {
	observev1.UnimplementedObserveServiceServer
	engine *flow.Engine
	info   ServerInfo
}

// NewObserveService shows the engine.
func NewObserveService(engine *flow.Engine, info ServerInfo) *ObserveService {
	return &ObserveService{engine: engine, info: info}
}

const (
	defaultAccounts = 20
	maxAccounts     = 1000
)

// GetOverview implements ObserveServiceServer.
func (s *ObserveService) GetOverview(_ context.Context, in *observev1.GetOverviewRequest) (*observev1.GetOverviewResponse, error) {
	o, err := s.overview(in.TopAccounts)
	return &observev1.GetOverviewResponse{Overview: o}, err
}

func (s *ObserveService) overview(accounts int32) (*observev1.Overview, error) {
	if accounts < 0 || accounts > maxAccounts {
		return nil, status.Errorf(codes.InvalidArgument, "top_accounts is %d; expected 0 (%d) to %d", accounts, defaultAccounts, maxAccounts)
	}
	if accounts == 0 {
		accounts = defaultAccounts
	}
	return toAPIOverview(s.engine.Overview(int(accounts))), nil
}

const minWatchInterval = 100 * time.Millisecond

// WatchOverview implements ObserveServiceServer.
func (s *ObserveService) WatchOverview(in *observev1.WatchOverviewRequest, stream observev1.ObserveService_WatchOverviewServer) error {
	return s.watch(stream.Context(), in, stream.Send)
}

func (s *ObserveService) watch(ctx context.Context, in *observev1.WatchOverviewRequest, send func(*observev1.WatchOverviewResponse) error) error {
	every := time.Second
	if in.Interval != nil {
		if every = in.Interval.AsDuration(); every < minWatchInterval {
			return status.Errorf(codes.InvalidArgument, "interval is %s; expected at least %s", every, minWatchInterval)
		}
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		o, err := s.overview(in.TopAccounts)
		if err != nil {
			return err
		}
		if err := send(&observev1.WatchOverviewResponse{Overview: o}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-tick.C:
		}
	}
}

// GetServerInfo implements ObserveServiceServer.
func (s *ObserveService) GetServerInfo(context.Context, *observev1.GetServerInfoRequest) (*observev1.GetServerInfoResponse, error) {
	out := &observev1.GetServerInfoResponse{
		Version: s.info.Version, DataDir: s.info.DataDir, StartTime: timestamppb.New(s.info.Start),
	}
	if s.info.Policies != nil {
		out.Policies = int32(s.info.Policies())
	}
	return out, nil
}

// ObserveConnect serves an ObserveService to browsers and curl.
type ObserveConnect struct{ Service *ObserveService }

var _ observev1connect.ObserveServiceHandler = ObserveConnect{}

// GetOverview implements ObserveServiceHandler.
func (c ObserveConnect) GetOverview(ctx context.Context, in *connect.Request[observev1.GetOverviewRequest]) (*connect.Response[observev1.GetOverviewResponse], error) {
	return toConnect(c.Service.GetOverview(ctx, in.Msg))
}

// WatchOverview implements ObserveServiceHandler.
func (c ObserveConnect) WatchOverview(ctx context.Context, in *connect.Request[observev1.WatchOverviewRequest], s *connect.ServerStream[observev1.WatchOverviewResponse]) error {
	return toConnectError(c.Service.watch(ctx, in.Msg, s.Send))
}

// GetServerInfo implements ObserveServiceHandler.
func (c ObserveConnect) GetServerInfo(ctx context.Context, in *connect.Request[observev1.GetServerInfoRequest]) (*connect.Response[observev1.GetServerInfoResponse], error) {
	return toConnect(c.Service.GetServerInfo(ctx, in.Msg))
}

func toAPIOverview(o *flow.Overview) *observev1.Overview {
	out := &observev1.Overview{Time: timestamppb.New(o.Time)}
	for i := range o.Points {
		p := &o.Points[i]
		if p.Admitted+p.Denied+p.Unmatched == 0 && p.Waiting == 0 {
			continue
		}
		out.ControlPoints = append(out.ControlPoints, &observev1.ControlPoint{
			Name: strings.ToValidUTF8(p.Name, "�"), Admitted: p.Admitted, Denied: p.Denied, Unmatched: p.Unmatched, Waiting: p.Waiting,
		})
	}
	for i := range o.Limiters {
		out.Limiters = append(out.Limiters, toAPILimiter(&o.Limiters[i]))
	}
	for i := range o.Accounts {
		a := &o.Accounts[i]
		out.Accounts = append(out.Accounts, &observev1.Account{
			Policy: a.Spec.Policy, Component: a.Spec.Component, Kind: a.Spec.Kind.String(),
			Account: a.Account, Used: a.Used, Limit: a.Limit, Waiting: int64(a.Waiting),
		})
	}
	return out
}

func toAPILimiter(l *flow.LimiterOverview) *observev1.Limiter {
	out := &observev1.Limiter{
		Policy: l.Spec.Policy, Component: l.Spec.Component, Kind: l.Spec.Kind.String(),
		ControlPoints: l.Spec.ControlPoints(), Admitted: l.Admitted, Denied: l.Denied,
		InFlight: l.InFlight, Accounts: l.Accounts, Waiting: int64(l.Waiting),
		Capacity: l.Spec.Capacity(), FillPerSecond: l.Spec.FillPerSecond(),
	}
	for i := range l.Workloads {
		out.Workloads = append(out.Workloads, toAPIWorkload(&l.Workloads[i]))
	}
	return out
}

func toAPIWorkload(w *sched.WorkloadSnapshot) *observev1.Workload {
	return &observev1.Workload{
		Name: strings.ToValidUTF8(w.Name, "�"), Waiting: w.Waiting, WaitingTokens: w.WaitingTokens,
		Admitted: w.Admitted, Denied: w.Denied, Priority: w.Priority,
		WaitSecondsTotal: w.WaitTotal.Seconds(), WaitSecondsMax: w.WaitMax.Seconds(),
	}
}
