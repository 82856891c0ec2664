// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"context"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	distcachev1 "github.com/sluice-project/sluice/api/gen/aperture/distcache/v1"
	infov1 "github.com/sluice-project/sluice/api/gen/aperture/info/v1"
	peersv1 "github.com/sluice-project/sluice/api/gen/aperture/peers/v1"
	statusv1 "github.com/sluice-project/sluice/api/gen/aperture/status/v1"
	"github.com/sluice-project/sluice/internal/version"
)

// infoService answers aperture.info.v1.InfoService.
type infoService struct {
	infov1.UnimplementedInfoServiceServer
	d *Door
}

// Version implements InfoServiceServer.
func (infoService) Version(context.Context, *emptypb.Empty) (*infov1.VersionInfo, error) {
	v := version.Get()
	return &infov1.VersionInfo{
		Version: v.Version, Service: "sluice", BuildOs: v.Platform, BuildTime: v.Time, GitCommitHash: v.Commit,
	}, nil
}

// Process implements InfoServiceServer.
func (s infoService) Process(context.Context, *emptypb.Empty) (*infov1.ProcessInfo, error) {
	return &infov1.ProcessInfo{
		StartTime: timestamppb.New(s.d.started), Uptime: durationpb.New(time.Since(s.d.started)),
	}, nil
}

// Host implements InfoServiceServer.
func (infoService) Host(context.Context, *emptypb.Empty) (*infov1.HostInfo, error) {
	name, err := os.Hostname()
	if err != nil {
		return nil, status.Error(codes.Internal, "the name of the host is not known: "+err.Error())
	}
	return &infov1.HostInfo{Hostname: text(name)}, nil
}

// statusService answers aperture.status.v1.StatusService.
type statusService struct {
	statusv1.UnimplementedStatusServiceServer
	d *Door
}

// GetGroupStatus implements StatusServiceServer.
func (s statusService) GetGroupStatus(_ context.Context, in *statusv1.GroupStatusRequest) (*statusv1.GroupStatus, error) {
	group := &statusv1.GroupStatus{Groups: map[string]*statusv1.GroupStatus{
		"system": {Groups: map[string]*statusv1.GroupStatus{
			"liveness": well(nil), "readiness": well(s.d.ready()),
		}},
	}}
	path := strings.Trim(in.Path, "/")
	for name := range strings.SplitSeq(path, "/") {
		if path == "" {
			break
		}
		if group = group.Groups[name]; group == nil {
			return nil, status.Errorf(codes.NotFound, "there is no status %q; want system, system/liveness or system/readiness", in.Path)
		}
	}
	return group, nil
}

// well is the status of a part with the problem it has, if it has one.
func well(problem error) *statusv1.GroupStatus {
	out := &statusv1.Status{Timestamp: timestamppb.Now()}
	if problem != nil {
		out.Error = &statusv1.Status_Error{Message: text(problem.Error())}
	} else if message, err := anypb.New(wrapperspb.String("healthy")); err == nil {
		out.Message = message
	}
	return &statusv1.GroupStatus{Status: out}
}

// isWell tells whether nothing in a group has a problem.
func isWell(g *statusv1.GroupStatus) bool {
	if g.GetStatus().GetError() != nil {
		return false
	}
	for _, sub := range g.GetGroups() {
		if !isWell(sub) {
			return false
		}
	}
	return true
}

// peersService answers aperture.peers.v1.PeerDiscoveryService. Servers find each other through what they share, so
// each knows of itself only.
type peersService struct {
	peersv1.UnimplementedPeerDiscoveryServiceServer
	d *Door
}

// GetPeers implements PeerDiscoveryServiceServer.
func (peersService) GetPeers(context.Context, *emptypb.Empty) (*peersv1.Peers, error) {
	name, err := os.Hostname()
	if err != nil {
		name = ""
	}
	return &peersv1.Peers{SelfPeer: &peersv1.Peer{Hostname: text(name)}}, nil
}

// GetPeer implements PeerDiscoveryServiceServer.
func (peersService) GetPeer(_ context.Context, in *peersv1.PeerRequest) (*peersv1.Peer, error) {
	return nil, status.Errorf(codes.NotFound, "no peer has the address %q", in.Address)
}

// cacheStatsService answers aperture.distcache.v1.DistCacheService.
type cacheStatsService struct {
	distcachev1.UnimplementedDistCacheServiceServer
	d *Door
}

// GetStats implements DistCacheServiceServer.
func (s cacheStatsService) GetStats(context.Context, *emptypb.Empty) (*structpb.Struct, error) {
	fields := map[string]*structpb.Value{}
	if s.d.cache != nil {
		u := s.d.cache.Usage()
		fields["entries"] = structpb.NewNumberValue(float64(u.Entries))
		fields["bytes"] = structpb.NewNumberValue(float64(u.Bytes))
		fields["evicted"] = structpb.NewNumberValue(float64(u.Evicted))
	}
	return &structpb.Struct{Fields: fields}, nil
}
