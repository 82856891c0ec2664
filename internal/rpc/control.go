// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "github.com/sluice-project/sluice/api/gen/sluice/control/v1"
	"github.com/sluice-project/sluice/api/gen/sluice/control/v1/controlv1connect"
	"github.com/sluice-project/sluice/internal/alert"
	"github.com/sluice-project/sluice/internal/circuit"
	"github.com/sluice-project/sluice/internal/control"
	"github.com/sluice-project/sluice/internal/fielderr"
)

// ControlService answers sluice.control.v1.ControlService over gRPC.
type ControlService struct {
	controlv1.UnimplementedControlServiceServer
	runtime *control.Runtime
	alerts  *alert.Center
}

// NewControlService shows the circuits and alerts of a server.
func NewControlService(runtime *control.Runtime, alerts *alert.Center) *ControlService {
	return &ControlService{runtime: runtime, alerts: alerts}
}

// controlError translates errors of the control plane.
func controlError(err error) error {
	var mistakes fielderr.List
	switch {
	case err == nil:
		return nil
	case errors.Is(err, control.ErrNotInForce):
		return status.Error(codes.NotFound, err.Error())
	case errors.As(err, &mistakes):
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return status.FromContextError(err).Err()
}

func needPolicy(name string) error {
	if name == "" {
		return status.Error(codes.InvalidArgument, "policy is empty; expected the name of a policy in force")
	}
	return nil
}

// GetCircuit implements ControlServiceServer.
func (s *ControlService) GetCircuit(_ context.Context, in *controlv1.GetCircuitRequest) (*controlv1.GetCircuitResponse, error) {
	if err := needPolicy(in.Policy); err != nil {
		return nil, err
	}
	st, err := s.runtime.Status(in.Policy)
	if err != nil {
		return nil, controlError(err)
	}
	return &controlv1.GetCircuitResponse{Circuit: toAPICircuit(&st)}, nil
}

func toAPICircuit(st *control.Status) *controlv1.Circuit {
	out := &controlv1.Circuit{
		Policy: st.Policy, Hash: st.Hash, IntervalSeconds: st.Interval.Seconds(), Ticks: st.Ticks, SkippedTicks: st.Skipped,
		LastTickSeconds: st.LastDuration.Seconds(), Stopped: st.Stopped,
	}
	if !st.LastTick.IsZero() {
		out.LastTick = timestamppb.New(st.LastTick)
	}
	for _, n := range st.Notices {
		out.Notices = append(out.Notices, &controlv1.Notice{Component: n.Component, Text: n.Text})
	}
	for i := range st.Components {
		c := &st.Components[i]
		out.Components = append(out.Components, &controlv1.CircuitComponent{
			Id: c.ID, Kind: c.Kind, Parent: c.Parent, Description: c.Description, Status: c.Status,
			Inputs: toAPIPorts(c.In), Outputs: toAPIPorts(c.Out),
		})
	}
	return out
}

func toAPIPorts(ports []control.PortView) []*controlv1.Port {
	out := make([]*controlv1.Port, len(ports))
	for i, p := range ports {
		out[i] = &controlv1.Port{Name: p.Name, Signal: p.Signal, Circuit: p.Circuit, Constant: p.Constant, Looped: p.Looped}
	}
	return out
}

// chosen are the positions of the signals that a caller asked for.
func chosen(signals []circuit.Signal, all bool) []int {
	var out []int
	for i, s := range signals {
		if all || s.Circuit == circuit.Root {
			out = append(out, i)
		}
	}
	return out
}

func toAPISignals(signals []circuit.Signal, chosen []int) []*controlv1.Signal {
	out := make([]*controlv1.Signal, len(chosen))
	for i, at := range chosen {
		out[i] = &controlv1.Signal{Name: signals[at].Name, Circuit: signals[at].Circuit}
	}
	return out
}

func toAPIFrames(frames []control.Frame, chosen []int) []*controlv1.Frame {
	out := make([]*controlv1.Frame, len(frames))
	for i, f := range frames {
		values := make([]float64, len(chosen))
		for j, at := range chosen {
			values[j] = f.Values[at]
		}
		out[i] = &controlv1.Frame{Tick: f.Tick, Time: timestamppb.New(f.Time), Values: values}
	}
	return out
}

// needTicks is needPolicy of calls that ask for a number of ticks.
func needTicks(policy string, ticks int32) error {
	if ticks < 0 {
		return status.Errorf(codes.InvalidArgument, "ticks is %d; expected 0 (all that are kept) or more", ticks)
	}
	return needPolicy(policy)
}

// GetSignals implements ControlServiceServer.
func (s *ControlService) GetSignals(_ context.Context, in *controlv1.GetSignalsRequest) (*controlv1.GetSignalsResponse, error) {
	if err := needTicks(in.Policy, in.Ticks); err != nil {
		return nil, err
	}
	signals, frames, err := s.runtime.History(in.Policy, int(in.Ticks))
	if err != nil {
		return nil, controlError(err)
	}
	which := chosen(signals, in.All)
	return &controlv1.GetSignalsResponse{Signals: toAPISignals(signals, which), Frames: toAPIFrames(frames, which)}, nil
}

// WatchSignals implements ControlServiceServer.
func (s *ControlService) WatchSignals(in *controlv1.WatchSignalsRequest, stream controlv1.ControlService_WatchSignalsServer) error {
	return s.watch(stream.Context(), in, stream.Send)
}

func (s *ControlService) watch(ctx context.Context, in *controlv1.WatchSignalsRequest, send func(*controlv1.WatchSignalsResponse) error) error {
	if err := needTicks(in.Policy, in.Ticks); err != nil {
		return err
	}
	var which []int
	return controlError(s.runtime.Watch(ctx, in.Policy, int(in.Ticks), func(u control.Update) error {
		out := &controlv1.WatchSignalsResponse{Missed: u.Missed}
		if u.Signals != nil {
			which = chosen(u.Signals, in.All)
			out.Signals = toAPISignals(u.Signals, which)
		}
		out.Frames = toAPIFrames(u.Frames, which)
		return send(out)
	}))
}

// GetDynamicConfig implements ControlServiceServer.
func (s *ControlService) GetDynamicConfig(_ context.Context, in *controlv1.GetDynamicConfigRequest) (*controlv1.GetDynamicConfigResponse, error) {
	if err := needPolicy(in.Policy); err != nil {
		return nil, err
	}
	config, keys, err := s.runtime.Config(in.Policy)
	if err != nil {
		return nil, controlError(err)
	}
	fields, err := toAPIConfig(config)
	if err != nil {
		return nil, err
	}
	out := &controlv1.GetDynamicConfigResponse{Config: fields}
	for _, k := range keys {
		out.Keys = append(out.Keys, &controlv1.ConfigKey{Key: k.Key, Component: k.Component, Type: k.Type, Description: k.Description})
	}
	return out, nil
}

func toAPIConfig(config map[string]any) (*structpb.Struct, error) {
	out, err := structpb.NewStruct(config)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "dynamic configuration: %v", err)
	}
	return out, nil
}

// SetDynamicConfig implements ControlServiceServer.
func (s *ControlService) SetDynamicConfig(ctx context.Context, in *controlv1.SetDynamicConfigRequest) (*controlv1.SetDynamicConfigResponse, error) {
	if err := needPolicy(in.Policy); err != nil {
		return nil, err
	}
	if err := s.runtime.SetConfig(ctx, in.Policy, in.Config.AsMap()); err != nil {
		return nil, configError(err)
	}
	config, _, err := s.runtime.Config(in.Policy)
	if err != nil {
		return nil, controlError(err)
	}
	fields, err := toAPIConfig(config)
	return &controlv1.SetDynamicConfigResponse{Config: fields}, err
}

// DeleteDynamicConfig implements ControlServiceServer.
func (s *ControlService) DeleteDynamicConfig(ctx context.Context, in *controlv1.DeleteDynamicConfigRequest) (*controlv1.DeleteDynamicConfigResponse, error) {
	if err := needPolicy(in.Policy); err != nil {
		return nil, err
	}
	if _, _, err := s.runtime.Config(in.Policy); err != nil {
		return nil, controlError(err)
	}
	return &controlv1.DeleteDynamicConfigResponse{}, configError(s.runtime.DeleteConfig(ctx, in.Policy))
}

// configError is controlError for changes: what the components refuse is the caller's mistake, what the
// store cannot keep is not.
func configError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, control.ErrNotKept):
		return status.Error(codes.Unavailable, err.Error())
	case errors.Is(err, control.ErrNotInForce), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return controlError(err)
	}
	return status.Error(codes.InvalidArgument, err.Error())
}

// ListAlerts implements ControlServiceServer.
func (s *ControlService) ListAlerts(_ context.Context, in *controlv1.ListAlertsRequest) (*controlv1.ListAlertsResponse, error) {
	page, err := s.alerts.List(alert.Filter{
		Policy: in.Policy, State: alert.State(in.State), Size: int(in.PageSize), Token: in.PageToken,
	})
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error()) // List has no other errors
	}
	out := &controlv1.ListAlertsResponse{NextPageToken: page.Next}
	for i := range page.Alerts {
		out.Alerts = append(out.Alerts, toAPIAlert(&page.Alerts[i]))
	}
	return out, nil
}

func toAPIAlert(a *alert.Alert) *controlv1.Alert {
	return &controlv1.Alert{
		Id: strconv.FormatInt(a.ID, 10), Name: a.Name, Severity: a.Severity, State: string(a.State), Policy: a.Policy, Component: a.Component,
		Labels: a.Labels, Channels: a.Channels, StartTime: optionalTime(a.Start), EndTime: optionalTime(a.End),
		LastTime: optionalTime(a.Last), DeliveryError: strings.ToValidUTF8(a.DeliveryError, "�"),
	}
}

func optionalTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// ControlConnect serves a ControlService to browsers and curl.
type ControlConnect struct{ Service *ControlService }

var _ controlv1connect.ControlServiceHandler = ControlConnect{}

// GetCircuit implements ControlServiceHandler.
func (c ControlConnect) GetCircuit(ctx context.Context, in *connect.Request[controlv1.GetCircuitRequest]) (*connect.Response[controlv1.GetCircuitResponse], error) {
	return toConnect(c.Service.GetCircuit(ctx, in.Msg))
}

// GetSignals implements ControlServiceHandler.
func (c ControlConnect) GetSignals(ctx context.Context, in *connect.Request[controlv1.GetSignalsRequest]) (*connect.Response[controlv1.GetSignalsResponse], error) {
	return toConnect(c.Service.GetSignals(ctx, in.Msg))
}

// WatchSignals implements ControlServiceHandler.
func (c ControlConnect) WatchSignals(ctx context.Context, in *connect.Request[controlv1.WatchSignalsRequest], s *connect.ServerStream[controlv1.WatchSignalsResponse]) error {
	return toConnectError(c.Service.watch(ctx, in.Msg, s.Send))
}

// GetDynamicConfig implements ControlServiceHandler.
func (c ControlConnect) GetDynamicConfig(ctx context.Context, in *connect.Request[controlv1.GetDynamicConfigRequest]) (*connect.Response[controlv1.GetDynamicConfigResponse], error) {
	return toConnect(c.Service.GetDynamicConfig(ctx, in.Msg))
}

// SetDynamicConfig implements ControlServiceHandler.
func (c ControlConnect) SetDynamicConfig(ctx context.Context, in *connect.Request[controlv1.SetDynamicConfigRequest]) (*connect.Response[controlv1.SetDynamicConfigResponse], error) {
	return toConnect(c.Service.SetDynamicConfig(ctx, in.Msg))
}

// DeleteDynamicConfig implements ControlServiceHandler.
func (c ControlConnect) DeleteDynamicConfig(ctx context.Context, in *connect.Request[controlv1.DeleteDynamicConfigRequest]) (*connect.Response[controlv1.DeleteDynamicConfigResponse], error) {
	return toConnect(c.Service.DeleteDynamicConfig(ctx, in.Msg))
}

// ListAlerts implements ControlServiceHandler.
func (c ControlConnect) ListAlerts(ctx context.Context, in *connect.Request[controlv1.ListAlertsRequest]) (*connect.Response[controlv1.ListAlertsResponse], error) {
	return toConnect(c.Service.ListAlerts(ctx, in.Msg))
}
